SELECT s.id, s.project, s.conversation_id, s.state, s.phase, s.waiting_reason, s.runs_at, s.agent,
       s.execution_path, s.model, s.attempts::smallint AS attempts, s.error_class, s.error,
       s.output_summary, s.cost_tokens, s.cost::text AS cost, s.change_id, s.change_state, s.attention,
       s.priority, s.submitted_by, s.created_at, s.run_at, s.started_at, s.ended_at, s.worker_id,
       s.cancel_requested_at, s.input
  FROM task_status s
 WHERE s.id = $1::bigint
