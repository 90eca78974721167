SELECT request_changes($1::bigint, $2::text, $3::text) AS follow_up
