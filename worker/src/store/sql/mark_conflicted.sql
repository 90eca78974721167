WITH done AS (
    UPDATE pending_changes SET state = 'conflicted', target_ref = $3::text, target_before = $4::text,
           conflicts = $5::jsonb, apply_until = NULL
     WHERE id = $1::bigint AND apply_token = $2::bigint AND state = 'approved'
    RETURNING id, task_id, attempt
)
SELECT change_event(d.task_id, d.attempt, 'change_conflicted',
       jsonb_build_object('change_id', d.id, 'target_ref', $3, 'tip', $4, 'paths', $5))
  FROM done d
