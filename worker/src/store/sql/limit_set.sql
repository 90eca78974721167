-- The row in the audit log is made by a trigger, which hears of the actor in this way.
WITH named AS (
    SELECT set_config('dispatch.actor', $3::text, true)
), kept AS (
    INSERT INTO limits (limit_key, max_running) VALUES ($1::text, $2::integer)
    ON CONFLICT (limit_key) DO UPDATE SET max_running = EXCLUDED.max_running
    RETURNING limit_key, max_running
)
SELECT k.limit_key AS key, nullif(k.max_running, 2147483647) AS max_running,
       (SELECT count(*) FROM leases s WHERE s.limit_key = k.limit_key) AS running,
       (SELECT count(*) FROM ready_tasks r WHERE r.limit_key = k.limit_key) AS ready,
       (SELECT count(*) FROM parked_tasks p WHERE p.limit_key = k.limit_key) AS waiting
  FROM named, kept k
