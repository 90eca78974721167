-- A null leaves the setting as it is; an empty text or a zero takes it away.
WITH changed AS (
    UPDATE projects
       SET path = coalesce($2::text, path),
           target_ref = nullif(coalesce($3::text, target_ref), ''),
           worktree = coalesce($4::text, worktree),
           trusted = coalesce($5::boolean, trusted),
           default_agent = nullif(coalesce($6::text, default_agent), ''),
           max_running = nullif(coalesce($7::integer, max_running), 0),
           copy_files = coalesce($8::text[], copy_files),
           setup = nullif(coalesce($9::text, setup), ''),
           teardown = nullif(coalesce($10::text, teardown), '')
     WHERE name = $1::text
    RETURNING name, path, target_ref, worktree, trusted, default_agent, max_running, copy_files, setup, teardown,
       created_at
), audited AS (
    INSERT INTO audit_log (actor, action, subject, detail)
    SELECT $11::text, 'project.update', 'project ' || c.name,
           jsonb_strip_nulls(jsonb_build_object('path', $2::text, 'target_ref', $3::text,
               'worktree', $4::text, 'trusted', $5::boolean, 'default_agent', $6::text,
               'max_running', $7::integer, 'copy_files', $8::text[], 'setup', $9::text,
               'teardown', $10::text))
      FROM changed c
)
SELECT name, path, target_ref, worktree, trusted, default_agent, max_running, copy_files, setup, teardown,
       created_at
  FROM changed
