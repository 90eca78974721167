-- The row in the audit log is made by a trigger, which hears of the actor in this way.
WITH named AS (
    SELECT set_config('dispatch.actor', $2::text, true)
), removed AS (
    DELETE FROM projects WHERE name = $1::text RETURNING name
)
SELECT name FROM named, removed
