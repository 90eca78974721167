SELECT task_id FROM finish_plain($1::bigint[], $2::bigint[], $3::bigint[])
