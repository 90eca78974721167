UPDATE lookups SET answered_at = now(), answered_by = $3::text, answer = $4::jsonb
 WHERE id = $1::bigint AND token = $2::bigint AND answered_at IS NULL
RETURNING pg_notify(dispatch_channel(), 'lookup')
