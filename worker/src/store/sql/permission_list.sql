SELECT r.id, r.task_id, r.attempt, r.agent, r.kind, r.title, r.detail, r.status, r.decided_by,
       r.note, r.requested_at, r.deadline_at, r.decided_at
  FROM permission_requests r
 WHERE r.id < $1::bigint
   AND ($2::text IS NULL OR r.status = $2::text)
   AND ($3::bigint IS NULL OR r.task_id = $3::bigint)
 ORDER BY r.id DESC
 LIMIT $4::bigint
