WITH done AS (
    UPDATE pending_changes SET state = 'undone', undone_at = clock_timestamp(), apply_until = NULL, apply_error = NULL
     WHERE id = $1::bigint AND apply_token = $2::bigint AND state = 'applied'
    RETURNING id, task_id, attempt, target_ref, undo_asked_by
)
SELECT change_event(d.task_id, d.attempt, 'change_undone',
       jsonb_build_object('change_id', d.id, 'target_ref', d.target_ref, 'commit', $3::text, 'by', d.undo_asked_by))
  FROM done d
