SELECT i.task_id, i.attempt, i.n, i.turn, i.kind, i.text, i.detail, i.at, i.ended_at
  FROM items i
 WHERE i.conversation_id = $1::bigint
   AND (i.task_id, i.attempt, i.n) > ($2::bigint, $3::smallint, $4::integer)
 ORDER BY i.task_id, i.attempt, i.n
 LIMIT $5::bigint
