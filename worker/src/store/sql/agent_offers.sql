SELECT o.worker_id, w.name AS worker,
       CASE WHEN o.expires_at < now() THEN 'unavailable' ELSE o.status END AS status,
       o.error, o.version, o.slots, o.fallback, o.probed_at, o.expires_at
  FROM agent_offers o
  LEFT JOIN workers w ON w.id = o.worker_id
 WHERE o.name = $1::text
 ORDER BY (o.status = 'ready' AND o.expires_at >= now()) DESC, w.name, o.worker_id
