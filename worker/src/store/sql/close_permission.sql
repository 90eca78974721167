-- Nobody answered in time, or the attempt is ending; an answer that came first stands.
UPDATE permission_requests SET status = $2::text, decided_by = $3::text, decided_at = clock_timestamp()
 WHERE id = $1::bigint AND status = 'pending'
RETURNING id
