INSERT INTO audit_log (actor, action, subject) VALUES ($1::text, $2::text, $3::text)
