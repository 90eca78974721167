UPDATE leases SET phase = $3::text WHERE task_id = $1::bigint AND token = $2::bigint RETURNING task_id
