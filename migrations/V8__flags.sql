-- What a reviewer must not overlook, for the change as a whole: the flags of its files, each once, the
-- worst first. Changes of earlier versions have none here; those of their files stay.

ALTER TABLE pending_changes ADD COLUMN flags text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN pending_changes.flags IS 'Warnings of all its files, each once, the worst first: runs_in_ci, steers_agents, secret, …';
UPDATE rights SET privileges = replace(privileges, 'removed_lines, notices)', 'removed_lines, notices, flags)')
 WHERE role = 'worker' AND object = 'pending_changes';
COMMENT ON COLUMN pending_change_files.flags IS 'Warnings for the reviewer, the worst first: runs_in_ci, steers_agents, secret, …';
