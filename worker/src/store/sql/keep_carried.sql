INSERT INTO carried_work (task_id, attempt, base_commit, result_commit, changed, pack)
VALUES ($1::bigint, $2::smallint, $3::text, $4::text, $5::boolean, $6::bytea)
ON CONFLICT (task_id) DO UPDATE SET attempt = EXCLUDED.attempt, base_commit = EXCLUDED.base_commit,
       result_commit = EXCLUDED.result_commit, changed = EXCLUDED.changed, pack = EXCLUDED.pack, change = NULL
