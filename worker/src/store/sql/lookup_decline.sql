-- This worker cannot; the next one that looks may.
UPDATE lookups SET declined = declined || $3::uuid, answered_by = $4::text, answer = $5::jsonb, taken_until = NULL
 WHERE id = $1::bigint AND token = $2::bigint AND answered_at IS NULL
RETURNING pg_notify(dispatch_channel(), 'lookup')
