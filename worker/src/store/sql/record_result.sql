UPDATE attempts SET result_commit = $3::text, result_ref = $4::text
 WHERE task_id = $1::bigint AND token = $2::bigint AND result_commit IS NULL
