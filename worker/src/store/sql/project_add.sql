WITH added AS (
    INSERT INTO projects (name, path, target_ref, worktree, trusted, default_agent, max_running,
                          copy_files, setup, teardown)
    VALUES ($1::text, $2::text, nullif($3::text, ''), coalesce($4::text, 'private'),
            coalesce($5::boolean, false), nullif($6::text, ''), nullif($7::integer, 0),
            coalesce($8::text[], '{}'), nullif($9::text, ''), nullif($10::text, ''))
    RETURNING name, path, target_ref, worktree, trusted, default_agent, max_running, copy_files, setup, teardown,
       created_at
), audited AS (
    INSERT INTO audit_log (actor, action, subject, detail)
    SELECT $11::text, 'project.add', 'project ' || a.name, jsonb_build_object('path', a.path) FROM added a
)
SELECT name, path, target_ref, worktree, trusted, default_agent, max_running, copy_files, setup, teardown,
       created_at
  FROM added
