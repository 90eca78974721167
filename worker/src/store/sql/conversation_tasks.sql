-- The newest ones, the first of them first.
SELECT s.id, s.state, s.waiting_reason, s.agent, s.model, s.submitted_by, s.created_at, s.ended_at,
       s.error_class, s.cost_tokens, s.change_id, s.change_state, s.attention,
       left(split_part(ltrim(s.input, E' \t\r\n'), E'\n', 1), 200) AS title
  FROM (SELECT t.id FROM tasks t
         WHERE t.id = $1::bigint OR t.conversation_id = $1
         ORDER BY t.id DESC LIMIT $2::bigint) newest
  JOIN task_status s ON s.id = newest.id
 ORDER BY s.id
