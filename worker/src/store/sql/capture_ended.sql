-- What became of a request.
UPDATE requests r SET ended_at = clock_timestamp(), status = $4::integer, error = $5::text
  FROM leases l
 WHERE l.task_id = $1::bigint AND l.token = $2::bigint
   AND r.task_id = l.task_id AND r.attempt = l.attempt AND r.n = $3::integer
