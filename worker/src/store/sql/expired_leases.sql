-- Leases whose worker was not seen for $1 milliseconds; starts at the dead workers, not at the
-- running tasks, so that long ones never starve the page.
SELECT l.task_id, l.token, l.attempt, l.uncharged, l.agent, l.worker_id, t.max_attempts
  FROM leases l
  JOIN tasks t ON t.id = l.task_id
 WHERE NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = l.worker_id
                    AND w.last_seen > now() - $1::bigint * interval '1 millisecond')
 ORDER BY l.task_id LIMIT $2::bigint
