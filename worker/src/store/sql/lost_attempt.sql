-- For the janitor: what a worktree on disk belongs to, and whether anybody still works in it.
SELECT t.project, a.ended_at IS NOT NULL AS ended,
       EXISTS (SELECT 1 FROM leases l WHERE l.task_id = a.task_id AND l.token = a.token) AS live
  FROM attempts a JOIN tasks t ON t.id = a.task_id
 WHERE a.task_id = $1::bigint AND a.token = $2::bigint
