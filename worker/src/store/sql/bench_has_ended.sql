SELECT EXISTS (SELECT 1 FROM outcomes WHERE task_id = $1::bigint) AS ended
