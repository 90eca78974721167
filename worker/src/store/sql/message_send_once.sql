SELECT s.message_id, s.state, s.task_id, s.replayed
  FROM send_message_once($1::bigint, $2::text, $3::text, $4::text) s
