WITH removed AS (
    DELETE FROM projects WHERE name = $1::text RETURNING name
), audited AS (
    INSERT INTO audit_log (actor, action, subject)
    SELECT $2::text, 'project.remove', 'project ' || r.name FROM removed r
)
SELECT name FROM removed
