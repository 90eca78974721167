-- Walks the outcomes backwards by number until the page is full.
SELECT s.id, s.project, s.conversation_id, s.state, s.phase, s.waiting_reason, s.runs_at, s.agent,
       s.execution_path, s.model, s.attempts::smallint AS attempts, s.error_class, s.error,
       s.output_summary, s.cost_tokens, s.cost::text AS cost, s.change_id, s.change_state, s.attention,
       s.priority, s.submitted_by, s.created_at, s.run_at, s.started_at, s.ended_at, s.worker_id,
       s.cancel_requested_at, left(s.input, 200) AS input
  FROM task_status s
 WHERE s.id = ANY (ARRAY(
           SELECT t.id
             FROM outcomes o
             JOIN tasks t ON t.id = o.task_id
            WHERE o.task_id < $1::bigint AND o.state = $5::text
              AND ($2::text IS NULL OR t.project = $2::text)
              AND ($3::text IS NULL OR t.agent = $3::text)
            ORDER BY o.task_id DESC LIMIT $4::bigint))
   AND s.state = $5::text
 ORDER BY s.id DESC
