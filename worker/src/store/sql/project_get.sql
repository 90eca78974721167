SELECT name, path, target_ref, worktree, trusted, four_eyes, sandbox, default_agent, max_running, copy_files, setup, teardown,
       created_at
  FROM projects
 WHERE name = $1::text
