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
  -- A sum that misses an attempt is not the session's: it is unknown. An attempt that ran and did not
  -- say in which session it did may have gone on in this one; a price from the table is not what the
  -- agent counts.
  CROSS JOIN LATERAL (
      SELECT CASE WHEN count(u.input_tokens) = count(*) THEN sum(u.input_tokens)::bigint END AS input_tokens,
             CASE WHEN count(u.output_tokens) = count(*) THEN sum(u.output_tokens)::bigint END AS output_tokens,
             CASE WHEN count(u.cache_read_tokens) = count(*)
                  THEN sum(u.cache_read_tokens)::bigint END AS cache_read_tokens,
             CASE WHEN count(u.cache_write_tokens) = count(*)
                  THEN sum(u.cache_write_tokens)::bigint END AS cache_write_tokens,
             CASE WHEN count(u.reasoning_tokens) = count(*)
                  THEN sum(u.reasoning_tokens)::bigint END AS reasoning_tokens,
             CASE WHEN count(u.cost) FILTER (WHERE u.cost_source = 'agent') = count(*)
                       AND count(DISTINCT u.currency) = 1
                  THEN sum(u.cost) END AS cost
        FROM (SELECT a.*, min(a.started_at) FILTER (WHERE a.native_session_id = c.native_session_id) OVER () AS began
                FROM tasks t
                JOIN attempts a ON a.task_id = t.id
               WHERE t.id = $1 OR t.conversation_id = $1) a
        LEFT JOIN usage_reports u ON u.task_id = a.task_id AND u.attempt = a.attempt
       WHERE a.native_session_id = c.native_session_id
          OR (a.native_session_id IS NULL AND a.launched_at IS NOT NULL AND a.agent = c.agent
              AND a.started_at > a.began)) used
 WHERE c.id = $1
