SELECT decide_files($1::bigint, $2::text, $3::text[], $4::text, $5::text, $6::text) AS hit
