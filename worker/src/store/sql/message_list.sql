SELECT i.id, i.conversation_id, i.state, i.text, i.sent_by, i.sent_at, i.task_id, i.attempt, i.delivered_at
  FROM inbox i
 WHERE i.conversation_id = $1::bigint AND i.id > $2::bigint
 ORDER BY i.id LIMIT $3::bigint
