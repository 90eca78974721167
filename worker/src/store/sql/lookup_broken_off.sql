-- What worker $1 was trying of this kind when its service broke off: nobody tries it again by itself.
UPDATE lookups SET answered_at = now(), answered_by = $3::text, answer = $4::jsonb
 WHERE worker_id = $1::uuid AND answered_at IS NULL AND token IS NOT NULL
   AND question ->> 'kind' = $2::text
RETURNING pg_notify(dispatch_channel(), 'lookup')
