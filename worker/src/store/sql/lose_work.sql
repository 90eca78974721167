SELECT lose_work($1::bigint, $2::bigint) AS held
