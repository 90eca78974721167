UPDATE permission_requests SET status = 'cancelled', decided_by = 'the attempt ended', decided_at = clock_timestamp()
 WHERE task_id = $1::bigint AND token = $2::bigint AND status = 'pending'
