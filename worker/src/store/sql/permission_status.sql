SELECT status, decided_by FROM permission_requests WHERE id = $1::bigint
