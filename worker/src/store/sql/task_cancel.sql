SELECT cancel_task($1::bigint, $2::text, $3::text) AS outcome
