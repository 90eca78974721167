-- It stays applied: say why, once, to who asked.
WITH kept AS (
    UPDATE pending_changes SET undo_asked_at = NULL, apply_until = NULL, apply_token = NULL, apply_error = $3::text
     WHERE id = $1::bigint AND apply_token = $2::bigint AND state = 'applied'
    RETURNING id, task_id, attempt
)
SELECT change_event(k.task_id, k.attempt, 'change_undo_refused', jsonb_build_object('change_id', k.id, 'error', $3))
  FROM kept k
