-- The row in the audit log is made by a trigger, which hears of the actor in this way.
WITH named AS (
    SELECT set_config('dispatch.actor', $11::text, true)
), added AS (
    INSERT INTO projects (name, path, target_ref, worktree, trusted, default_agent, max_running,
                          copy_files, setup, teardown, four_eyes, sandbox)
    VALUES ($1::text, $2::text, nullif($3::text, ''), coalesce($4::text, 'private'),
            coalesce($5::boolean, false), nullif($6::text, ''), nullif($7::integer, 0),
            coalesce($8::text[], '{}'), nullif($9::text, ''), nullif($10::text, ''),
            coalesce($12::boolean, false), nullif(nullif($13::text, ''), 'required'))
    RETURNING name, path, target_ref, worktree, trusted, four_eyes, sandbox, default_agent, max_running, copy_files, setup, teardown,
       created_at
)
SELECT name, path, target_ref, worktree, trusted, four_eyes, sandbox, default_agent, max_running, copy_files, setup, teardown,
       created_at
  FROM named, added
