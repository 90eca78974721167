-- What a follow-up builds on: the agent's own session with what was recorded for it so far, and the
-- newest open change of the conversation.
SELECT c.native_session_id, c.agent, used.*,
       (SELECT jsonb_build_object('base', p.base_commit, 'result', p.result_commit, 'id', p.id)
          FROM pending_changes p
          JOIN tasks t ON t.id = p.task_id
         WHERE (t.id = $1::bigint OR t.conversation_id = $1) AND p.state IN ('pending', 'approved', 'conflicted')
         ORDER BY p.id DESC LIMIT 1) AS change,
       (SELECT a.worktree
          FROM tasks t
          JOIN attempts a ON a.task_id = t.id AND a.native_session_id = c.native_session_id
         WHERE t.id = $1 OR t.conversation_id = $1
         ORDER BY a.started_at DESC LIMIT 1) AS session_worktree
  FROM conversations c
  CROSS JOIN LATERAL (
      SELECT sum(u.input_tokens)::bigint AS input_tokens, sum(u.output_tokens)::bigint AS output_tokens,
             sum(u.cache_read_tokens)::bigint AS cache_read_tokens,
             sum(u.cache_write_tokens)::bigint AS cache_write_tokens,
             sum(u.reasoning_tokens)::bigint AS reasoning_tokens, sum(u.cost) AS cost
        FROM tasks t
        JOIN attempts a ON a.task_id = t.id AND a.native_session_id = c.native_session_id
        JOIN usage_reports u ON u.task_id = a.task_id AND u.attempt = a.attempt
       WHERE t.id = $1 OR t.conversation_id = $1) used
 WHERE c.id = $1
