SELECT EXISTS (SELECT 1 FROM tasks t WHERE t.idempotency_key = $1::text) AS taken
