SELECT count(*) AS ended FROM outcomes WHERE task_id >= $1::bigint
