SELECT cancel_by, cancel_reason FROM leases
 WHERE task_id = $1::bigint AND token = $2::bigint AND cancel_requested_at IS NOT NULL
