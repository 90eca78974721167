UPDATE attempts SET base_commit = $3::text, worktree = $4::text
 WHERE task_id = $1::bigint AND token = $2::bigint AND ended_at IS NULL
