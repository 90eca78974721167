-- The files of a change as reviewers see them, with what was decided on each.
SELECT f.state = 'approved' AS approved, f.path_bytes, f.old_path_bytes, f.path, f.old_path, f.operation, f.kind,
       f.old_mode, f.new_mode, f.old_blob, f.new_blob, f.added_lines, f.removed_lines, f.patch, f.patch_cut
  FROM pending_change_files f WHERE f.change_id = $1::bigint ORDER BY f.n
