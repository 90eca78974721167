SELECT ask_workers($1::jsonb, $2::boolean, $3::text) AS id
