-- The attempt begins to prepare: only while it holds its lease.
INSERT INTO attempts (task_id, attempt, token, worker_id, agent, execution_path, model, mode_id, thinking_option_id,
                      conversation_id, fallback_from, started_at, sandbox, network)
SELECT l.task_id, l.attempt, l.token, l.worker_id, l.agent, $3::text, $4::text, $5::text, $6::text, $7::bigint, $8::text, l.started_at, $9::text, $10::text
  FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint
RETURNING task_id
