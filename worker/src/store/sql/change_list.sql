SELECT c.id, c.task_id, c.attempt, c.project, t.agent, left(t.input, 200) AS input, c.state, c.partial,
       c.digest, c.base_commit, c.result_commit, c.result_ref, c.files, c.added_lines,
       c.removed_lines, c.notices, c.flags, c.created_at, c.decided_at, c.decided_by, c.follow_up_task_id,
       c.superseded_by, c.target_ref, c.applied_commit, c.applied_at, c.undo_ref, c.undo_asked_at,
       c.undone_at, c.conflicts, c.apply_error
  FROM pending_changes c
  JOIN tasks t ON t.id = c.task_id
 WHERE c.id < $1::bigint
   AND ($2::text IS NULL OR c.state = $2::text)
   AND ($3::text IS NULL OR c.project = $3::text)
   AND ($4::bigint IS NULL OR c.task_id = $4::bigint)
 ORDER BY c.id DESC
 LIMIT $5::bigint
