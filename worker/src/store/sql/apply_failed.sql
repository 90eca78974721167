-- Not now: say why, and try again after $4 milliseconds (here or on a worker that can). $5: it is
-- certain that nothing was moved, so that the change can be rejected meanwhile.
UPDATE pending_changes SET apply_error = $3::text,
       apply_token = CASE WHEN $5::boolean THEN NULL ELSE apply_token END,
       apply_until = clock_timestamp() + $4::bigint * interval '1 millisecond'
 WHERE id = $1::bigint AND apply_token = $2::bigint AND state = 'approved'
