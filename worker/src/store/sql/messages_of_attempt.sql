-- How many of the messages from $3 to $4 are of this step ($6) of the attempt that has this token.
SELECT count(*) AS there
  FROM leases l JOIN messages m ON m.task_id = l.task_id AND m.attempt = l.attempt
 WHERE l.task_id = $1::bigint AND l.token = $2::bigint
   AND m.conversation_id = $5::bigint AND m.step = $6::integer AND m.seq BETWEEN $3::bigint AND $4::bigint
