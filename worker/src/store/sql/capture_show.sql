-- One of them with its body; $2 attempt, null: the last one that has it.
SELECT r.attempt, r.n, r.model, encode(r.hash, 'hex') AS hash, b.bytes, r.status, r.error, r.at, r.ended_at, b.body
  FROM requests r JOIN request_bodies b ON b.hash = r.hash
 WHERE r.task_id = $1::bigint AND r.n = $3::integer AND ($2::smallint IS NULL OR r.attempt = $2::smallint)
 ORDER BY r.attempt DESC LIMIT 1
