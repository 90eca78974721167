SELECT cancel_message($1::bigint, $2::text) AS state
