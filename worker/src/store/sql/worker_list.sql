SELECT w.id, w.name, w.version,
       CASE WHEN w.last_seen < now() - make_interval(secs => $1::float8) THEN 'lost'
            WHEN w.held_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.worker_id = w.id) THEN 'drained'
            WHEN w.held_at IS NOT NULL OR w.draining THEN 'draining' ELSE 'live' END AS status,
       w.slots, w.sandbox,
       (SELECT count(*) FROM leases l WHERE l.worker_id = w.id) AS running,
       ARRAY(SELECT o.name FROM agent_offers o
              WHERE o.worker_id = w.id AND o.status = 'ready' AND o.expires_at > now()
              ORDER BY o.name) AS agents,
       w.started_at, w.last_seen, w.held_at, w.held_by
  FROM workers w
 ORDER BY w.started_at DESC, w.id
