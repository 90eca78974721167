-- Who may do what. The owner of the tables may do everything, as before. Logins that are members of
-- dispatch_submitter, dispatch_reviewer or dispatch_worker may do what the table `rights` says, and
-- act under their own name only. Roles belong to the cluster and not every owner may make them, so
-- that grant_rights() makes and furnishes them, after the migrations and whenever it is asked to.

-- ---------------------------------------------------------------- under whose name

-- The name an act is recorded under. Called inside functions that run as the owner: whoever is the
-- owner, or may become it, names anybody (the surfaces do, for the people in front of them); every
-- other login is itself.
CREATE FUNCTION acting_as(named text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN pg_has_role(session_user, current_user, 'MEMBER') THEN coalesce(named, session_user)
                ELSE session_user END
$$;

-- The same person on the command line ("ada"), by SQL ("ada") and over HTTP ("ada (http)").
CREATE FUNCTION person(actor text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT regexp_replace(actor, ' \(http\)$', '') $$;

CREATE FUNCTION refuse_task_of_others(wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(session_user, current_user, 'MEMBER')
       AND EXISTS (SELECT 1 FROM tasks t WHERE t.id = wanted AND t.submitted_by <> session_user) THEN
        RAISE EXCEPTION 'task % was not submitted by you', wanted
            USING ERRCODE = 'insufficient_privilege', HINT = 'Ask who submitted it, or an operator.';
    END IF;
END $$;

-- ---------------------------------------------------------------- four eyes

ALTER TABLE projects ADD COLUMN four_eyes boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN projects.four_eyes IS 'Nobody approves a change whose agent they told what to do.';
ALTER TABLE settings ADD CONSTRAINT four_eyes_is_on_or_off
    CHECK (name <> 'four_eyes' OR value IN ('on', 'off'));
COMMENT ON TABLE settings IS 'Fleet-wide settings: default_agent; four_eyes (on: as if every project had it).';

-- Refuse a reviewer whose words the agent followed on the way to this change: who submitted its task
-- or an earlier one of its conversation. Asking for changes submits a task, and counts.
CREATE FUNCTION refuse_own_work(c pending_changes, reviewer text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    own bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM projects p WHERE p.name = c.project AND p.four_eyes)
       AND NOT EXISTS (SELECT 1 FROM settings s WHERE s.name = 'four_eyes' AND s.value = 'on') THEN
        RETURN;
    END IF;
    SELECT t.id INTO own
      FROM tasks t, (SELECT coalesce(x.conversation_id, x.id) AS id FROM tasks x WHERE x.id = c.task_id) first
     WHERE (t.id = first.id OR t.conversation_id = first.id) AND t.id <= c.task_id
       AND person(t.submitted_by) = person(reviewer)
     ORDER BY t.id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'change % needs a second pair of eyes: % submitted task %, which led to it', c.id, reviewer, own
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Let somebody approve it who submitted no task of its conversation and asked for no changes in it.';
    END IF;
END $$;

-- ---------------------------------------------------------------- the operations, with rights

-- Each keeps its name and arguments; what it did so far is now the function with _as.
ALTER FUNCTION cancel_task(bigint, text, text) RENAME TO cancel_task_as;
ALTER FUNCTION requeue_task(bigint, text) RENAME TO requeue_task_as;
ALTER FUNCTION approve_change(bigint, text, text[], text, text) RENAME TO approve_change_as;
ALTER FUNCTION reject_change(bigint, text, text) RENAME TO reject_change_as;
ALTER FUNCTION undo_change(bigint, text, text) RENAME TO undo_change_as;
ALTER FUNCTION decide_files(bigint, text, text[], text, text, text) RENAME TO decide_files_as;
ALTER FUNCTION request_changes(bigint, text, text) RENAME TO request_changes_as;
ALTER FUNCTION answer_permission(bigint, text, text, text) RENAME TO answer_permission_as;

CREATE FUNCTION cancel_task(wanted bigint, reason text DEFAULT NULL, actor text DEFAULT session_user)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse_task_of_others(wanted);
    RETURN cancel_task_as(wanted, reason, acting_as(actor));
END $$;
COMMENT ON FUNCTION cancel_task IS 'cancelled: it had not begun; cancel_requested: its worker stops it now; already_over: nothing to do.';

CREATE FUNCTION requeue_task(wanted bigint, actor text DEFAULT session_user) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse_task_of_others(wanted);
    PERFORM requeue_task_as(wanted, acting_as(actor));
END $$;

CREATE FUNCTION approve_change(wanted bigint, seen_digest text, only_files text[] DEFAULT NULL,
                               actor text DEFAULT session_user, comment text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse_own_work(lock_change(wanted), acting_as(actor));
    PERFORM approve_change_as(wanted, seen_digest, only_files, acting_as(actor), comment);
END $$;

CREATE FUNCTION reject_change(wanted bigint, reason text DEFAULT NULL, actor text DEFAULT session_user)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM reject_change_as(wanted, reason, acting_as(actor));
END $$;

CREATE FUNCTION undo_change(wanted bigint, reason text DEFAULT NULL, actor text DEFAULT session_user)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM undo_change_as(wanted, reason, acting_as(actor));
END $$;

CREATE FUNCTION decide_files(wanted bigint, seen_digest text, paths text[], verdict text,
                             actor text DEFAULT session_user, comment text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    -- Setting files aside takes nothing in. Taking them back does, behind the next approval.
    IF verdict IS DISTINCT FROM 'rejected' THEN
        PERFORM refuse_own_work(lock_change(wanted), acting_as(actor));
    END IF;
    RETURN decide_files_as(wanted, seen_digest, paths, verdict, acting_as(actor), comment);
END $$;

CREATE FUNCTION request_changes(wanted bigint, comment text, actor text DEFAULT session_user)
RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN request_changes_as(wanted, comment, acting_as(actor));
END $$;

CREATE FUNCTION answer_permission(wanted bigint, answer text, actor text DEFAULT session_user, why text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM answer_permission_as(wanted, answer, acting_as(actor), why);
END $$;

-- ---------------------------------------------------------------- decisions are people's

-- A worker writes how far a change or a question got. That somebody approved, rejected, answered or
-- wants something undone is written by the functions above, which run as the owner of the table.
CREATE FUNCTION refuse_decision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(current_user, (SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'MEMBER') THEN
        RAISE EXCEPTION 'a decision in % is not written by hand', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege', HINT = 'A reviewer calls ' || TG_ARGV[0] || '.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER pending_changes_decided BEFORE UPDATE ON pending_changes FOR EACH ROW
    WHEN ((NEW.state IN ('approved', 'rejected') AND NEW.state <> OLD.state)
          OR (NEW.undo_asked_at IS NOT NULL AND NEW.undo_asked_at IS DISTINCT FROM OLD.undo_asked_at))
    EXECUTE FUNCTION refuse_decision('approve_change(), reject_change() or undo_change()');
CREATE TRIGGER permission_requests_decided BEFORE UPDATE ON permission_requests FOR EACH ROW
    WHEN (NEW.status IN ('allowed', 'denied') AND NEW.status <> OLD.status)
    EXECUTE FUNCTION refuse_decision('answer_permission()');

-- ---------------------------------------------------------------- the audit log

-- Append-only for everybody, its owner too. ALWAYS: also where triggers are off for replication.
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_is_append_only;
CREATE TRIGGER audit_log_stays BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('The audit log is append-only.');
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_stays;
CREATE TRIGGER reviews_stay BEFORE TRUNCATE ON reviews
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Add another review instead.');

-- Each change of what operators set, by whichever door. $0: what a row is called, $1: the column with
-- its name. The actor is whom the statement names for its transaction (dispatch.actor), else the login.
CREATE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    who text := acting_as(nullif(current_setting('dispatch.actor', true), ''));
    was jsonb := CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END;
    becomes jsonb := CASE WHEN TG_OP IN ('UPDATE', 'INSERT') THEN to_jsonb(NEW) END;
    verb text := CASE TG_OP WHEN 'INSERT' THEN 'add' WHEN 'UPDATE' THEN 'update' ELSE 'remove' END;
BEGIN
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (who, TG_ARGV[0] || '.' || verb,
            TG_ARGV[0] || ' ' || coalesce(coalesce(was, becomes) ->> TG_ARGV[1], '(all)'),
            CASE TG_OP
                WHEN 'UPDATE' THEN coalesce(
                    (SELECT jsonb_object_agg(n.key, jsonb_build_object('from', was -> n.key, 'to', n.value))
                       FROM jsonb_each(becomes) n WHERE n.value IS DISTINCT FROM was -> n.key), '{}')
                ELSE coalesce(jsonb_strip_nulls(coalesce(was, becomes) - TG_ARGV[1] - 'created_at'), '{}')
            END);
    RETURN NULL;
END $$;
CREATE TRIGGER projects_audit AFTER INSERT OR UPDATE OR DELETE ON projects
    FOR EACH ROW EXECUTE FUNCTION audit_change('project', 'name');
CREATE TRIGGER projects_audit_all AFTER TRUNCATE ON projects
    FOR EACH STATEMENT EXECUTE FUNCTION audit_change('project', 'name');
CREATE TRIGGER settings_audit AFTER INSERT OR DELETE ON settings
    FOR EACH ROW EXECUTE FUNCTION audit_change('setting', 'name');
-- Workers write what their agents.toml says at each start.
CREATE TRIGGER settings_audit_update AFTER UPDATE ON settings
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION audit_change('setting', 'name');
CREATE TRIGGER settings_audit_all AFTER TRUNCATE ON settings
    FOR EACH STATEMENT EXECUTE FUNCTION audit_change('setting', 'name');
-- Depth 0: not the rows that inserts of tasks and changes of projects bring with them.
CREATE TRIGGER limits_audit AFTER INSERT OR UPDATE OR DELETE ON limits
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION audit_change('limit', 'limit_key');
CREATE TRIGGER limits_audit_all AFTER TRUNCATE ON limits
    FOR EACH STATEMENT EXECUTE FUNCTION audit_change('limit', 'limit_key');

-- ---------------------------------------------------------------- what a submitter sees

CREATE FUNCTION began_conversation(conversation bigint) RETURNS boolean LANGUAGE sql STABLE AS
    $$ SELECT EXISTS (SELECT 1 FROM tasks t WHERE t.id = conversation AND t.submitted_by = session_user) $$;

-- Whether the login sees the tasks of others although it is a submitter.
CREATE FUNCTION sees_all_tasks() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT pg_has_role(session_user, 'dispatch_reviewer', 'USAGE') OR pg_has_role(session_user, 'dispatch_worker', 'USAGE')
$$;

-- A view looks with the eyes of its owner, so that task_status, which shows everything, is not for
-- submitters. The barrier keeps their own functions from looking at rows before the rule does.
CREATE VIEW my_tasks WITH (security_barrier) AS
SELECT s.id, s.project, s.conversation_id, s.state, s.phase, s.waiting_reason, s.runs_at, s.agent,
       s.execution_path, s.model, s.attempts, s.error_class, s.error, s.output_summary, s.cost_tokens,
       s.cost, s.change_id, s.change_state, s.priority, s.submitted_by, s.created_at, s.run_at,
       s.started_at, s.ended_at, s.worker_id, s.cancel_requested_at, s.input
  FROM task_status s
 WHERE s.submitted_by = session_user
    OR (s.conversation_id <> s.id
        AND EXISTS (SELECT 1 FROM tasks t WHERE t.id = s.conversation_id AND t.submitted_by = session_user));
COMMENT ON VIEW my_tasks IS 'task_status of what the login submitted, and of the conversations it began.';

-- ---------------------------------------------------------------- functions that run as the owner

-- Their names mean what they mean in this schema, whatever the caller's search_path and temporary
-- tables say. change_event and admit_tasks: what they lock and fill is nobody's to touch.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('cancel_task', 'requeue_task', 'approve_change', 'reject_change', 'undo_change',
                                  'decide_files', 'request_changes', 'answer_permission', 'change_event',
                                  'admit_tasks', 'audit_change', 'began_conversation')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    -- What they check before, nobody gets around.
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('cancel_task_as', 'requeue_task_as', 'approve_change_as', 'reject_change_as',
                                  'undo_change_as', 'decide_files_as', 'request_changes_as', 'answer_permission_as')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;

-- ---------------------------------------------------------------- rights

CREATE TABLE rights (
    role       text NOT NULL CONSTRAINT role_is_known CHECK (role IN ('submitter', 'reviewer', 'worker')),
    kind       text NOT NULL DEFAULT 'TABLE' CHECK (kind IN ('TABLE', 'SEQUENCE', 'FUNCTION')),
    object     text NOT NULL,
    privileges text NOT NULL,
    seen       text,
    written    text,
    PRIMARY KEY (role, kind, object)
);
COMMENT ON TABLE rights IS 'What grant_rights() grants. A migration that adds something adds its rows; seen and written are rules on rows.';

INSERT INTO rights (role, object, privileges, seen, written) VALUES
    ('submitter', 'tasks', 'SELECT, INSERT (project, input, agent, model, mode_id, thinking_option_id, conversation_id, '
                           'priority, run_at, max_attempts, timeout, idle_timeout, deadline, limit_key, idempotency_key, '
                           'fallback, base_ref, submitted_by)',
     '(SELECT sees_all_tasks()) OR submitted_by = session_user '
     'OR (conversation_id IS NOT NULL AND began_conversation(conversation_id))',
     'submitted_by = session_user AND (conversation_id IS NULL OR (SELECT sees_all_tasks()) '
     'OR began_conversation(conversation_id))'),
    ('submitter', 'my_tasks', 'SELECT', NULL, NULL),
    ('submitter', 'available_agents', 'SELECT', NULL, NULL),
    ('submitter', 'catalogue_agents', 'SELECT', NULL, NULL),
    ('submitter', 'projects', 'SELECT (name, target_ref, default_agent, max_running, four_eyes)', NULL, NULL),
    ('submitter', 'settings', 'SELECT', NULL, NULL),
    ('submitter', 'pending_change_files', 'SELECT',
     'EXISTS (SELECT 1 FROM pending_changes c WHERE c.id = change_id)', NULL),
    ('submitter', 'reviews', 'SELECT', 'EXISTS (SELECT 1 FROM pending_changes c WHERE c.id = change_id)', NULL),
    ('worker', 'settings', 'SELECT, INSERT, UPDATE, DELETE', 'name = ''default_agent''', NULL);
-- What hangs on a task is seen by whoever sees the task.
INSERT INTO rights (role, object, privileges, seen)
SELECT 'submitter', o, 'SELECT', 'EXISTS (SELECT 1 FROM tasks t WHERE t.id = task_id)'
  FROM unnest(ARRAY['attempts', 'events', 'items', 'outcomes', 'pending_changes', 'turns', 'usage_reports']) o;
INSERT INTO rights (role, object, privileges)
SELECT 'reviewer', o, 'SELECT'
  FROM unnest(ARRAY['agent_offers', 'attempts', 'audit_log', 'available_agents', 'catalogue_agents',
                    'change_packs', 'conversations', 'deadlines', 'events', 'items', 'later_tasks', 'leases',
                    'limits', 'my_tasks', 'outcomes', 'parked_tasks', 'pending_change_files', 'pending_changes',
                    'permission_requests', 'projects', 'ready_tasks', 'reviews', 'settings', 'task_status',
                    'tasks', 'turns', 'usage_reports', 'workers']) o;
INSERT INTO rights (role, object, privileges)
SELECT r, 'refinery_schema_history', 'SELECT' FROM unnest(ARRAY['submitter', 'reviewer', 'worker']) r;
INSERT INTO rights (role, kind, object, privileges)
SELECT r, 'FUNCTION', f, 'EXECUTE'
  FROM (VALUES ('submitter', ARRAY['cancel_task', 'requeue_task', 'began_conversation']),
               ('reviewer', ARRAY['approve_change', 'reject_change', 'undo_change', 'decide_files', 'request_changes',
                                  'answer_permission', 'cancel_task', 'requeue_task']),
               ('worker', ARRAY['change_event'])) x (r, fs), unnest(fs) f;

-- What the statements of a worker need, and no more. A right on a column beside DELETE is that of
-- locking a row.
INSERT INTO rights (role, object, privileges) VALUES
    ('worker', 'workers', 'SELECT, INSERT, UPDATE, DELETE'),
    ('worker', 'bells', 'SELECT, INSERT, UPDATE, DELETE'),
    ('worker', 'agent_offers', 'SELECT, INSERT, UPDATE, DELETE'),
    ('worker', 'catalogue_agents', 'SELECT, INSERT, UPDATE'),
    ('worker', 'available_agents', 'SELECT'),
    ('worker', 'projects', 'SELECT'),
    ('worker', 'tasks', 'SELECT'),
    ('worker', 'task_status', 'SELECT'),
    ('worker', 'limits', 'SELECT'),
    ('worker', 'ready_tasks', 'SELECT, INSERT, DELETE, UPDATE (other)'),
    ('worker', 'later_tasks', 'SELECT, INSERT, DELETE, UPDATE (reason)'),
    ('worker', 'parked_tasks', 'SELECT, INSERT, DELETE, UPDATE (parked_at)'),
    ('worker', 'deadlines', 'SELECT, DELETE, UPDATE (deadline)'),
    ('worker', 'leases', 'SELECT, INSERT, DELETE, UPDATE (phase)'),
    ('worker', 'outcomes', 'SELECT, INSERT'),
    ('worker', 'attempts', 'SELECT, INSERT, UPDATE'),
    ('worker', 'events', 'SELECT, INSERT'),
    ('worker', 'conversations', 'SELECT, INSERT, UPDATE'),
    ('worker', 'turns', 'SELECT, INSERT, UPDATE'),
    ('worker', 'items', 'SELECT, INSERT, UPDATE'),
    ('worker', 'usage_reports', 'SELECT, INSERT'),
    ('worker', 'permission_requests', 'SELECT, INSERT, UPDATE (status, decided_by, decided_at)'),
    ('worker', 'pending_changes', 'SELECT, INSERT (task_id, attempt, token, project, partial, base_commit, result_tree, '
                                  'result_commit, result_ref, digest, files, added_lines, removed_lines, notices), '
                                  'UPDATE (state, decided_at, superseded_by, target_ref, target_before, applied_commit, '
                                  'applied_at, undo_ref, undo_asked_at, undone_at, conflicts, apply_error, apply_token, '
                                  'apply_until)'),
    ('worker', 'pending_change_files', 'SELECT, INSERT (change_id, n, path, path_bytes, old_path, old_path_bytes, '
                                       'operation, kind, old_mode, new_mode, old_blob, new_blob, added_lines, '
                                       'removed_lines, patch, patch_cut, flags)'),
    ('worker', 'change_packs', 'SELECT, INSERT'),
    ('worker', 'change_moves', 'SELECT');
INSERT INTO rights (role, kind, object, privileges) VALUES ('worker', 'SEQUENCE', 'lease_tokens', 'USAGE');

-- Make the roles that are not there, and give them their rights in this database. Harmless to repeat,
-- and at once in several databases of a cluster. Gives the names of the roles it made.
CREATE FUNCTION grant_rights() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    here text := current_schema();
    r record;
    made text[] := '{}';
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('dispatch rights ' || here));
    FOR r IN SELECT DISTINCT 'dispatch_' || x.role AS name FROM rights x ORDER BY 1 LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles p WHERE p.rolname = r.name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', r.name);
                made := made || r.name;
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN
                    NULL; -- Made a moment ago, for another database of the cluster.
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % is not there, and % may not make it', r.name, current_user
                        USING ERRCODE = 'insufficient_privilege',
                              HINT = 'Let a role with CREATEROLE run: CREATE ROLE dispatch_submitter; CREATE ROLE dispatch_reviewer; CREATE ROLE dispatch_worker; then run: dispatch migrate --roles';
            END;
        END IF;
        -- It would be somebody who gets these rights, and not a group.
        IF EXISTS (SELECT 1 FROM pg_roles p WHERE p.rolname = r.name AND p.rolcanlogin) THEN
            RAISE EXCEPTION 'role % may log in; it must be a group', r.name
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = format('Rename that login (ALTER ROLE %I RENAME TO …), then run: dispatch migrate --roles', r.name);
        END IF;
    END LOOP;

    -- Who may create things in the schema may make them look like ours.
    IF EXISTS (SELECT 1 FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                WHERE n.nspname = here AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
        BEGIN
            EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', here);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL; -- Told below.
        END;
        IF EXISTS (SELECT 1 FROM pg_namespace n, aclexplode(n.nspacl) a
                    WHERE n.nspname = here AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
            RAISE EXCEPTION 'everybody may create objects in schema %, and % cannot forbid it', here, current_user
                USING ERRCODE = 'insufficient_privilege',
                      HINT = format('Let its owner run: REVOKE CREATE ON SCHEMA %I FROM PUBLIC; then run: dispatch migrate --roles', here);
        END IF;
    END IF;

    FOR r IN SELECT DISTINCT 'dispatch_' || x.role AS name FROM rights x ORDER BY 1 LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', here, r.name);
    END LOOP;
    FOR r IN SELECT x.*, 'dispatch_' || x.role AS name FROM rights x ORDER BY x.object, x.role LOOP
        EXECUTE format('GRANT %s ON %s %I.%I TO %I', r.privileges, r.kind, here, r.object, r.name);
        CONTINUE WHEN r.seen IS NULL;
        -- Grants decide for everybody else, as before there were rules on rows.
        IF NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.schemaname = here AND p.tablename = r.object
                                                    AND p.policyname = 'everybody') THEN
            EXECUTE format('CREATE POLICY everybody ON %I.%I USING (true) WITH CHECK (true)', here, r.object);
            EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', here, r.object);
        END IF;
        IF NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.schemaname = here AND p.tablename = r.object
                                                    AND p.policyname = r.name) THEN
            EXECUTE format('CREATE POLICY %I ON %I.%I AS RESTRICTIVE TO %I USING (%s) WITH CHECK (%s)',
                           r.name, here, r.object, r.name, r.seen, coalesce(r.written, r.seen));
        END IF;
    END LOOP;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (session_user, 'rights.grant', 'rights', jsonb_build_object('made', made));
    RETURN made;
END $$;
REVOKE EXECUTE ON FUNCTION grant_rights() FROM PUBLIC;
