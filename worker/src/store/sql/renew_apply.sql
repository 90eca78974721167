-- The application goes on: nobody else takes the change for $3 milliseconds more.
UPDATE pending_changes SET apply_until = clock_timestamp() + $3::bigint * interval '1 millisecond'
 WHERE id = $1::bigint AND apply_token = $2::bigint AND state = 'approved'
