-- Whether a reader that has everything up to $2 has the end of the task too.
SELECT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = $1::bigint AND o.seq <= $2::bigint) AS told
