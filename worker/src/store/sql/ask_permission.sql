-- A durable question, only while the attempt holds its lease.
INSERT INTO permission_requests (task_id, attempt, token, agent, kind, title, detail, options, deadline_at)
SELECT l.task_id, l.attempt, l.token, l.agent, $3::text, $4::text, $5::jsonb, $6::jsonb,
       clock_timestamp() + $7::bigint * interval '1 millisecond'
  FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint
RETURNING id
