-- Leases of this worker that it does not know of (the answer to its claim was lost): $2 are the
-- tokens it knows, $3 milliseconds of grace for claims under way.
SELECT l.task_id, l.token, l.attempt, l.uncharged, l.agent, l.worker_id, t.max_attempts
  FROM leases l
  JOIN tasks t ON t.id = l.task_id
 WHERE l.worker_id = $1::uuid AND NOT l.token = ANY ($2::bigint[])
   AND l.started_at < now() - $3::bigint * interval '1 millisecond'
 ORDER BY l.task_id LIMIT 500
