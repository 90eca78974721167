INSERT INTO change_packs (change_id, bytes, pack) VALUES ($1::bigint, octet_length($2::bytea), $2)
