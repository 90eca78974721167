-- A null leaves the setting as it is; an empty text or a zero takes it away. The row in the audit log
-- is made by a trigger, which hears of the actor in this way.
WITH named AS (
    SELECT set_config('dispatch.actor', $11::text, true)
), changed AS (
    UPDATE projects
       SET path = coalesce($2::text, path),
           target_ref = nullif(coalesce($3::text, target_ref), ''),
           worktree = coalesce($4::text, worktree),
           trusted = coalesce($5::boolean, trusted),
           default_agent = nullif(coalesce($6::text, default_agent), ''),
           max_running = nullif(coalesce($7::integer, max_running), 0),
           copy_files = coalesce($8::text[], copy_files),
           setup = nullif(coalesce($9::text, setup), ''),
           teardown = nullif(coalesce($10::text, teardown), ''),
           four_eyes = coalesce($12::boolean, four_eyes),
           sandbox = nullif(nullif(coalesce($13::text, sandbox), ''), 'required')
     WHERE name = $1::text
    RETURNING name, path, target_ref, worktree, trusted, four_eyes, sandbox, default_agent, max_running, copy_files, setup, teardown,
       created_at
)
SELECT name, path, target_ref, worktree, trusted, four_eyes, sandbox, default_agent, max_running, copy_files, setup, teardown,
       created_at
  FROM named, changed
