-- A question that policy answered at once: kept for the record.
INSERT INTO permission_requests (task_id, attempt, token, agent, kind, title, detail, options, status, decided_by, decided_at)
SELECT l.task_id, l.attempt, l.token, l.agent, $3::text, $4::text, $5::jsonb, $6::jsonb, $7::text, 'policy', clock_timestamp()
  FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint
RETURNING id
