-- What the audit log has, newest first.
SELECT a.id, NULL::bigint AS task, a.at, a.actor, a.action, a.subject, a.detail
  FROM audit_log a
 WHERE a.id < $1::bigint
   AND ($2::text IS NULL OR a.subject = $2::text)
   AND ($3::text IS NULL OR a.actor = $3::text)
 ORDER BY a.id DESC
 LIMIT $4::bigint
