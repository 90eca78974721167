SELECT undo_change($1::bigint, $2::text, $3::text)
