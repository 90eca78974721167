SELECT pack FROM change_packs WHERE change_id = $1::bigint
