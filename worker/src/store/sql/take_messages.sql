SELECT texts, compact FROM take_messages($1::bigint, $2::bigint, $3::integer, $4::bigint)
