-- Nobody waits for this answer any more.
UPDATE lookups SET left_at = now() WHERE id = $1::bigint
