SELECT approve_change($1::bigint, $2::text, $3::text[], $4::text, $5::text)
