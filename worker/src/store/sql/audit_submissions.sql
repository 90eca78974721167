-- Who submitted which task, newest first; $2 is `task N` when it is about one. As the view acts has it.
SELECT NULL::bigint AS id, t.id AS task, t.created_at AS at, t.submitted_by AS actor, 'task.submit' AS action,
       'task ' || t.id AS subject, jsonb_build_object('project', t.project, 'agent', t.agent) AS detail
  FROM tasks t
 WHERE t.id < $1::bigint
   AND ($2::text IS NULL OR t.id = substring($2::text FROM '^task ([1-9][0-9]{0,17})$')::bigint)
   AND ($3::text IS NULL OR t.submitted_by = $3::text)
 ORDER BY t.id DESC
 LIMIT $4::bigint
