DELETE FROM carried_work WHERE task_id = $1::bigint
