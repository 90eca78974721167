-- The agent really runs: what was started, as which version, with which options.
UPDATE attempts SET launched_at = clock_timestamp(), command = $3::jsonb, agent_version = $4::text,
       model = coalesce($5::text, model), mode_id = coalesce($6::text, mode_id), native_session_id = $7::text
 WHERE task_id = $1::bigint AND token = $2::bigint AND ended_at IS NULL
