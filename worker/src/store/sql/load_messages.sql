SELECT m.seq, m.role, m.parts
  FROM messages m
 WHERE m.conversation_id = $1::bigint AND m.replaced_by IS NULL AND m.lost_at IS NULL
 ORDER BY m.ord
