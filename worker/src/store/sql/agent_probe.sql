SELECT probe_agent($1::text, $2::uuid, $3::text) AS id
