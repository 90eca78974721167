INSERT INTO pending_change_files (change_id, n, path, path_bytes, old_path, old_path_bytes, operation, kind, old_mode,
                                  new_mode, old_blob, new_blob, added_lines, removed_lines, patch, patch_cut, flags)
SELECT $1::bigint, f.n, f.path, f.path_bytes, f.old_path, f.old_path_bytes, f.operation, f.kind, f.old_mode, f.new_mode,
       f.old_blob, f.new_blob, f.added_lines, f.removed_lines, f.patch, f.patch_cut,
       CASE WHEN f.flags = '' THEN '{}'::text[] ELSE string_to_array(f.flags, ',') END
  FROM unnest($2::integer[], $3::text[], $4::bytea[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::integer[],
              $10::integer[], $11::text[], $12::text[], $13::integer[], $14::integer[], $15::text[], $16::boolean[],
              $17::text[])
       AS f (n, path, path_bytes, old_path, old_path_bytes, operation, kind, old_mode, new_mode, old_blob, new_blob,
             added_lines, removed_lines, patch, patch_cut, flags)
