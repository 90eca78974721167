SELECT next_seq($1::bigint) AS seq
