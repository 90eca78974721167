SELECT 1 AS one FROM tasks WHERE id = $1::bigint
