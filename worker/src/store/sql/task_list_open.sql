-- A state is a table, so a page of open tasks walks only what is open.
SELECT s.id, s.project, s.conversation_id, s.state, s.phase, s.waiting_reason, s.runs_at, s.agent,
       s.execution_path, s.model, s.attempts::smallint AS attempts, s.error_class, s.error,
       s.output_summary, s.cost_tokens, s.cost::text AS cost, s.change_id, s.change_state, s.attention,
       s.priority, s.submitted_by, s.created_at, s.run_at, s.started_at, s.ended_at, s.worker_id,
       s.cancel_requested_at, left(s.input, 200) AS input
  FROM task_status s
 WHERE s.id = ANY (ARRAY(
           SELECT t.id
             FROM (SELECT r.task_id FROM ready_tasks r WHERE $5::text = 'pending'
                   UNION ALL SELECT w.task_id FROM later_tasks w WHERE $5::text = 'pending'
                   UNION ALL SELECT k.task_id FROM parked_tasks k WHERE $5::text = 'pending'
                   UNION ALL SELECT l.task_id FROM leases l WHERE $5::text = 'running') held
             JOIN tasks t ON t.id = held.task_id
            WHERE t.id < $1::bigint
              AND ($2::text IS NULL OR t.project = $2::text)
              AND ($3::text IS NULL OR t.agent = $3::text)
            ORDER BY t.id DESC LIMIT $4::bigint))
   AND s.state = $5::text
 ORDER BY s.id DESC
