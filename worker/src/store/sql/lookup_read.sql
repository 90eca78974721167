-- What became of these questions; lives: whether the one worker that was asked still does. A heartbeat may be
-- late: what its worker is trying goes on.
SELECT l.id, l.worker_id, w.name AS worker, l.answered_at IS NOT NULL AS answered, l.answered_by, l.answer,
       l.worker_id IS NULL OR coalesce(w.last_seen > now() - interval '30 seconds', false) AS lives
  FROM lookups l LEFT JOIN workers w ON w.id = l.worker_id
 WHERE l.id = ANY ($1::bigint[]) ORDER BY l.id
