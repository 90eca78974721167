SELECT task_id, token, attempt, uncharged, agent, limit_key, project, input, asked_agent, model,
       mode_id, thinking_option_id, conversation_id, priority, run_at, max_attempts, timeout_ms,
       idle_timeout_ms, base_ref, submitted_by, next_seq
  FROM claim_tasks($1::uuid, $2::text[], $3::integer[], $4::timestamptz[], $5::integer)
 -- A worker learns at its next heartbeat that it is held; it takes nothing from that moment on all the same.
 WHERE NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = $1::uuid AND w.held_at IS NOT NULL)
