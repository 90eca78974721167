-- What the attempt that holds the lease has to know beside the messages of its conversation ($3).
SELECT t.max_steps, t.max_tokens, round(t.max_cost, 12) AS max_cost, c.todos, used.*,
       (SELECT coalesce(max(m.seq), 0) + 1 FROM messages m WHERE m.conversation_id = $3::bigint) AS next_seq,
       EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = $3 AND m.task_id = l.task_id
                  AND m.lost_at IS NULL) AS begun,
       (SELECT s.context_tokens FROM steps s WHERE s.conversation_id = $3 AND s.kind = 'model'
         ORDER BY s.at DESC LIMIT 1) AS context
  FROM leases l
  JOIN tasks t ON t.id = l.task_id
  LEFT JOIN conversations c ON c.id = $3
 CROSS JOIN LATERAL (
      SELECT count(*) AS steps, coalesce(sum(coalesce(s.estimated_tokens, s.total_tokens)), 0)::bigint AS tokens,
             coalesce(sum(coalesce(s.estimated_cost, s.cost)), 0) AS cost
        FROM steps s WHERE s.task_id = l.task_id AND s.attempt < l.attempt) used
 WHERE l.task_id = $1::bigint AND l.token = $2::bigint
