SELECT check_agent($1::text, $2::boolean, $3::uuid, $4::text) AS id
