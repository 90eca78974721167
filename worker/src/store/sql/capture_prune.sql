-- Forget requests older than $1 seconds, and the oldest ones beyond $2 bytes.
WITH counted AS (
    SELECT r.task_id, r.attempt, r.n, r.at,
           sum(b.bytes) OVER (ORDER BY r.at DESC, r.task_id, r.attempt, r.n) AS bytes_so_far
      FROM requests r JOIN request_bodies b ON b.hash = r.hash)
DELETE FROM requests r USING counted c
 WHERE r.task_id = c.task_id AND r.attempt = c.attempt AND r.n = c.n
   AND (c.at < now() - make_interval(secs => $1::float8) OR c.bytes_so_far > $2::bigint)
