SELECT f.n, f.path, f.old_path, f.operation, f.kind, f.old_mode, f.new_mode, f.added_lines,
       f.removed_lines, f.patch, f.patch_cut, f.state, f.flags
  FROM pending_change_files f
 WHERE f.change_id = $1::bigint AND ($2::text IS NULL OR f.path = $2::text)
 ORDER BY f.n
