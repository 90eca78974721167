-- The row in the audit log is made by a trigger, which hears of the actor in this way.
WITH named AS (
    SELECT set_config('dispatch.actor', $3::text, true)
), kept AS (
    INSERT INTO settings (name, value) VALUES ($1::text, $2::text)
    ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value
    RETURNING value
)
SELECT k.value FROM named, kept k
