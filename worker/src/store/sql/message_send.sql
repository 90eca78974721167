SELECT s.message_id, s.state, s.task_id FROM send_message($1::bigint, $2::text, $3::text) s
