-- A page of the requests of a task that were kept as they were sent.
SELECT r.attempt, r.n, r.model, encode(r.hash, 'hex') AS hash, b.bytes, r.status, r.error, r.at, r.ended_at
  FROM requests r JOIN request_bodies b ON b.hash = r.hash
 WHERE r.task_id = $1::bigint AND (r.attempt, r.n) > ($2::smallint, $3::integer)
 ORDER BY r.attempt, r.n LIMIT $4::bigint
