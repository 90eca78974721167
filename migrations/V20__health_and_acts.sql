-- How the fleet is and who did what, in full, by SQL too.

-- ---------------------------------------------------------------- how the fleet is

-- What dispatch doctor judges of the database and the fleet.
CREATE VIEW fleet_health AS
    SELECT (SELECT max(h.version)::bigint FROM refinery_schema_history h) AS schema_version,
           current_setting('server_version') AS version,
           current_setting('server_version_num')::integer AS version_num,
           clock_timestamp() AS now,
           (SELECT count(*) FROM pg_stat_activity) AS connections,
           current_setting('max_connections')::integer AS max_connections,
           -- Whoever holds rows of the past: vacuum cannot take away what a queue leaves behind.
           (SELECT coalesce(max(extract(epoch FROM now() - a.xact_start)), 0)::float8 FROM pg_stat_activity a
             WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()) AS oldest_transaction_s,
           (SELECT count(*) FROM pg_prepared_xacts) AS prepared_transactions,
           (SELECT count(*) FROM pg_replication_slots s WHERE NOT s.active) AS idle_slots,
           (SELECT count(*) FROM workers w WHERE w.last_seen > now() - interval '20 seconds') AS live_workers,
           (SELECT count(*) FROM catalogue_agents) AS known_agents,
           (SELECT count(DISTINCT o.name) FROM agent_offers o WHERE o.status = 'ready' AND o.expires_at > now())
               AS ready_agents,
           (SELECT count(*) FROM provider_pauses p WHERE p.until > now()) AS paused_providers,
           (SELECT count(*) FROM permission_requests r WHERE r.status = 'pending') AS open_questions;
COMMENT ON VIEW fleet_health IS 'One row: what the doctor judges. Of a machine, only a process on it knows: dispatch doctor. Of transactions, those that the login may see: all for a member of pg_read_all_stats.';

INSERT INTO rights (role, object, privileges) VALUES
    ('reviewer', 'fleet_health', 'SELECT'), ('worker', 'fleet_health', 'SELECT'), ('reviewer', 'acts', 'SELECT');

-- ---------------------------------------------------------------- who did what

-- The row of a task says who submitted it: it never changes, and a second row for each would cost the queue.
CREATE VIEW acts AS
    SELECT a.id, NULL::bigint AS task, a.at, a.actor, a.action, a.subject, a.detail FROM audit_log a
    UNION ALL
    SELECT NULL, t.id, t.created_at, t.submitted_by, 'task.submit', 'task ' || t.id,
           jsonb_build_object('project', t.project, 'agent', t.agent)
      FROM tasks t;
COMMENT ON VIEW acts IS 'The audit log, and who submitted each task. Ask by task or id: by actor or time all tasks are read.';

-- An approval without a name could not be applied: the commit says who approved it.
CREATE FUNCTION refuse_nobodys_approval() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(NEW.decided_by, '') ~ '\S' AND NEW.decided_at IS NOT NULL
       -- Who approved it before a conflict did not approve it again.
       AND (TG_OP = 'INSERT' OR OLD.state = 'approved' OR NEW.decided_at IS DISTINCT FROM OLD.decided_at) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'change % is approved by nobody', NEW.id
        USING ERRCODE = 'check_violation',
              HINT = format('It is recorded who approves it, and when: SELECT approve_change(%s, %L)', NEW.id, NEW.digest);
END $$;
CREATE TRIGGER pending_changes_have_a_decider BEFORE INSERT OR UPDATE OF state, decided_by, decided_at ON pending_changes
    FOR EACH ROW WHEN (NEW.state = 'approved') EXECUTE FUNCTION refuse_nobodys_approval();

DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION refuse_nobodys_approval() SET search_path = %I, pg_temp', current_schema());
    REVOKE EXECUTE ON FUNCTION refuse_nobodys_approval() FROM PUBLIC;
END $$;
