-- Nobody asks the provider ($1) for $2 milliseconds ($3 class, $4 message). A shorter pause does not end a
-- longer one: only a person does.
WITH paused AS (
    INSERT INTO provider_pauses AS p (provider, until, class, message, worker_id)
    VALUES ($1::text, clock_timestamp() + $2::bigint * interval '1 millisecond', $3::text, $4::text, $5::uuid)
    ON CONFLICT (provider) DO UPDATE
       SET until = EXCLUDED.until, class = EXCLUDED.class, message = EXCLUDED.message,
           worker_id = EXCLUDED.worker_id, paused_at = EXCLUDED.paused_at
     WHERE p.until < EXCLUDED.until
    RETURNING 1
)
SELECT pg_notify(dispatch_channel(), 'providers') FROM paused
