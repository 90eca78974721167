-- What a follow-up builds on: the agent's own session and the newest open change of the conversation.
SELECT c.native_session_id, c.agent,
       (SELECT jsonb_build_object('base', p.base_commit, 'result', p.result_commit, 'id', p.id)
          FROM pending_changes p
          JOIN tasks t ON t.id = p.task_id
         WHERE (t.id = $1::bigint OR t.conversation_id = $1) AND p.state IN ('pending', 'approved', 'conflicted')
         ORDER BY p.id DESC LIMIT 1) AS change
  FROM conversations c WHERE c.id = $1
