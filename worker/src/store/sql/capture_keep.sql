-- A request as it is sent, once, by the attempt that holds the lease; its body, if it is not there.
WITH held AS (SELECT l.task_id, l.attempt FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint),
     body AS (INSERT INTO request_bodies (hash, bytes, body)
              SELECT sha256(convert_to($5::text, 'UTF8')), octet_length($5), $5 FROM held
              ON CONFLICT (hash) DO UPDATE SET used_at = clock_timestamp() RETURNING hash)
INSERT INTO requests (task_id, attempt, n, model, hash)
SELECT h.task_id, h.attempt, $3::integer, $4::text, b.hash FROM held h, body b
ON CONFLICT (task_id, attempt, n) DO NOTHING
