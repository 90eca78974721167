-- What became of these questions.
SELECT l.id, l.worker_id, (SELECT w.name FROM workers w WHERE w.id = l.worker_id) AS worker,
       l.answered_at IS NOT NULL AS answered, l.answered_by, l.answer
  FROM lookups l WHERE l.id = ANY ($1::bigint[]) ORDER BY l.id
