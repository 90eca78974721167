-- Rows of workers that nobody has seen for a day and that hold no lease.
WITH dead AS (
    DELETE FROM workers w
     WHERE w.last_seen < now() - interval '1 day' AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.worker_id = w.id)
    RETURNING w.id
), bells_gone AS (
    DELETE FROM bells WHERE armed_until < now() - interval '1 day'
)
DELETE FROM agent_offers WHERE expires_at < now() - interval '7 days'
