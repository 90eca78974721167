SELECT revoke_token($1::bigint, $2::text) AS was_valid
