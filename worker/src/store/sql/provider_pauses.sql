SELECT p.provider, p.class, p.message, p.until, p.paused_at, p.worker_id::text AS worker_id,
       ceil(extract(epoch FROM p.until - clock_timestamp()) * 1000)::bigint AS remaining_ms
  FROM provider_pauses p
 WHERE p.until > clock_timestamp()
 ORDER BY p.provider
