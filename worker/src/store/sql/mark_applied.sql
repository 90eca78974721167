WITH done AS (
    UPDATE pending_changes SET state = 'applied', target_ref = $3::text, target_before = $4::text,
           applied_commit = $5::text, undo_ref = $6::text, applied_at = clock_timestamp(), apply_until = NULL, apply_error = NULL
     WHERE id = $1::bigint AND apply_token = $2::bigint AND state = 'approved'
    RETURNING id, task_id, attempt
)
SELECT change_event(d.task_id, d.attempt, 'change_applied',
       jsonb_build_object('change_id', d.id, 'target_ref', $3, 'commit', $5, 'before', $4, 'undo_ref', $6))
  FROM done d
