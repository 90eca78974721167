-- What the health of a fleet is judged by, of the database's side.
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::integer AS version_num,
       clock_timestamp() AS now,
       (SELECT count(*) FROM pg_stat_activity) AS connections,
       current_setting('max_connections')::integer AS max_connections,
       -- Whoever holds rows of the past: vacuum cannot take away what a queue leaves behind.
       (SELECT coalesce(max(extract(epoch FROM now() - a.xact_start)), 0)::float8 FROM pg_stat_activity a
         WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()) AS oldest_transaction_s,
       (SELECT count(*) FROM pg_prepared_xacts) AS prepared_transactions,
       (SELECT count(*) FROM pg_replication_slots s WHERE NOT s.active) AS idle_slots,
       (SELECT count(*) FROM workers w WHERE w.last_seen > now() - make_interval(secs => $1::float8)) AS live_workers,
       (SELECT count(*) FROM catalogue_agents) AS known_agents,
       (SELECT count(DISTINCT o.name) FROM agent_offers o WHERE o.status = 'ready' AND o.expires_at > now())
           AS ready_agents,
       (SELECT count(*) FROM provider_pauses p WHERE p.until > now()) AS paused_providers,
       (SELECT count(*) FROM permission_requests r WHERE r.status = 'pending') AS open_questions
