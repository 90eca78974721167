-- What may wait for somebody has an index of its own each; it is looked at newest first until the page is full.
SELECT s.id, s.project, s.conversation_id, s.state, s.phase, s.waiting_reason, s.runs_at, s.agent,
       s.execution_path, s.model, s.attempts::smallint AS attempts, s.error_class, s.error,
       s.output_summary, s.cost_tokens, s.cost::text AS cost, s.change_id, s.change_state, s.attention,
       s.priority, s.submitted_by, s.created_at, s.run_at, s.started_at, s.ended_at, s.worker_id,
       s.cancel_requested_at, left(s.input, 200) AS input
  FROM (SELECT q.task_id FROM permission_requests q WHERE q.status = 'pending'
        UNION SELECT c.task_id FROM pending_changes c WHERE c.state IN ('pending', 'conflicted')
        UNION SELECT o.task_id FROM outcomes o WHERE o.state = 'failed'
        UNION SELECT r.task_id FROM ready_tasks r
               WHERE NOT EXISTS (SELECT 1 FROM agent_offers a WHERE a.name = r.agent
                                    AND a.status IN ('ready', 'loading') AND a.expires_at > now())
        ORDER BY task_id DESC) may
  JOIN task_status s ON s.id = may.task_id
 WHERE may.task_id < $1::bigint
   AND ($2::text IS NULL OR s.project = $2::text)
   AND ($3::text IS NULL OR s.agent = $3::text)
   AND ($5::text IS NULL OR s.state = $5::text)
   AND s.attention = coalesce($6::text, s.attention)
 ORDER BY may.task_id DESC LIMIT $4::bigint
