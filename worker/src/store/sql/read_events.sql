SELECT seq, attempt, kind, payload, at FROM task_events($1::bigint, $2::bigint, $3::integer)
