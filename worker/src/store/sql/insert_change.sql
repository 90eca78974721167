INSERT INTO pending_changes (task_id, attempt, token, project, partial, base_commit, result_tree, result_commit,
                             result_ref, digest, files, added_lines, removed_lines, notices, flags)
VALUES ($1::bigint, $2::smallint, $3::bigint, $4::text, $5::boolean, $6::text, $7::text, $8::text,
        $9::text, $10::text, $11::integer, $12::bigint, $13::bigint, $14::jsonb, $15::text[])
RETURNING id
