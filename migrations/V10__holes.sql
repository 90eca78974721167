-- What a review of the rights found open, closed: names that a login could give another meaning, four
-- eyes around a requeue, answers written anew, a lock that anybody could hold, rights that stayed.

-- ---------------------------------------------------------------- four eyes

-- Refuse a reviewer whose words the agent followed on the way to this change: who submitted its task,
-- an earlier one of its conversation, or one that ran before the change was made. A task that is
-- requeued works on top of later ones. Asking for changes submits a task, and counts.
CREATE OR REPLACE FUNCTION refuse_own_work(c pending_changes, reviewer text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    own bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM projects p WHERE p.name = c.project AND p.four_eyes)
       AND NOT EXISTS (SELECT 1 FROM settings s WHERE s.name = 'four_eyes' AND s.value = 'on') THEN
        RETURN;
    END IF;
    SELECT t.id INTO own
      FROM tasks t, (SELECT coalesce(x.conversation_id, x.id) AS id FROM tasks x WHERE x.id = c.task_id) first
     WHERE (t.id = first.id OR t.conversation_id = first.id)
       AND (t.id <= c.task_id
            OR EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = t.id AND a.started_at <= c.created_at))
       AND person(t.submitted_by) = person(reviewer)
     ORDER BY t.id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'change % needs a second pair of eyes: % submitted task %, which led to it', c.id, reviewer, own
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Let somebody approve it who submitted no task of its conversation and asked for no changes in it.';
    END IF;
END $$;

-- ---------------------------------------------------------------- answers and decisions stay

CREATE FUNCTION refuse_second_answer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'permission request % is closed (%)', OLD.id, OLD.status
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'An answer holds once.';
END $$;
CREATE TRIGGER permission_requests_closed BEFORE UPDATE ON permission_requests FOR EACH ROW
    WHEN (OLD.status <> 'pending') EXECUTE FUNCTION refuse_second_answer();
-- A worker writes what needs no person: an answer by policy, that nobody answered in time, and that
-- nobody needs to any more. These are the names that it writes it under.
CREATE TRIGGER permission_requests_named BEFORE INSERT OR UPDATE ON permission_requests FOR EACH ROW
    WHEN ((NEW.status = 'pending') <> (NEW.decided_by IS NULL)
          OR NEW.decided_by NOT IN ('policy', 'deadline', 'the attempt ended'))
    EXECUTE FUNCTION refuse_decision('answer_permission()');

CREATE TRIGGER reviews_never_go BEFORE DELETE ON reviews
    FOR EACH ROW EXECUTE FUNCTION refuse_change('Decisions are kept, and the changes they are about.');
ALTER TABLE reviews ENABLE ALWAYS TRIGGER reviews_never_go;
ALTER TABLE reviews ENABLE ALWAYS TRIGGER reviews_never_change;
ALTER TABLE reviews ENABLE ALWAYS TRIGGER reviews_stay;

-- ---------------------------------------------------------------- one promoter at a time

CREATE TABLE promoting (nobody boolean);
COMMENT ON TABLE promoting IS 'Always empty: who holds its lock lets parked tasks out. It takes a right, unlike a lock by number.';

-- Let parked tasks out: under a limit as many as there is room for, highest priority first.
-- Room is counted, not kept, so that no crash can leak a slot. One at a time in the fleet, and each
-- judgement by a statement that begins after the lock is held: two that cannot see each other's
-- work would let out two tasks of one conversation, or too many under one key. NULL: somebody else
-- is at it, and may have judged before what the caller knows of was committed, so look again soon.
CREATE OR REPLACE FUNCTION promote_parked(most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    key record;
    moved integer := 0;
BEGIN
    BEGIN
        LOCK TABLE promoting IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN NULL;
    END;
    FOR key IN SELECT k.limit_key, k.max_running - used.tasks AS room
                 FROM (SELECT p.limit_key, limit_of(p.limit_key) AS max_running FROM parked_keys() p) k
                CROSS JOIN LATERAL (
                      SELECT (SELECT count(*) FROM ready_tasks r WHERE r.limit_key = k.limit_key)
                           + (SELECT count(*) FROM leases s WHERE s.limit_key = k.limit_key) AS tasks) used
                WHERE k.max_running > used.tasks
    LOOP
        moved := moved + let_out(key.limit_key, least(key.room, most)::integer);
        EXIT WHEN moved >= most;
    END LOOP;
    RETURN moved + let_out(NULL, most);
END $$;

-- Workers that run on must have the right at once; and one that is letting tasks out under the lock
-- by number that stood here is let finish. Not for ever: anybody can hold that one.
DO $$
BEGIN
    FOR look IN 1..50 LOOP
        EXIT WHEN pg_try_advisory_xact_lock(hashtext('dispatch promote ' || current_schema()));
        PERFORM pg_sleep(0.1);
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = 'dispatch_worker'
                AND has_table_privilege(r.oid, 'leases', 'DELETE')) THEN
        GRANT DELETE ON promoting TO dispatch_worker;
    END IF;
END $$;
INSERT INTO rights (role, object, privileges) VALUES ('worker', 'promoting', 'DELETE');

-- ---------------------------------------------------------------- rights follow their table

-- The columns that a claim fills: who wants a task cancelled is not written with it.
UPDATE rights SET privileges = 'SELECT, INSERT (task_id, token, worker_id, attempt, uncharged, agent, limit_key), '
                               'DELETE, UPDATE (phase)'
 WHERE role = 'worker' AND object = 'leases';

-- Take back what the roles hold on the objects of this schema.
CREATE FUNCTION revoke_rights() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    FOR r IN
        WITH ours AS (
            SELECT c.relowner AS owner, c.relnamespace AS schema FROM pg_class c WHERE c.oid = 'rights'::regclass
        ), held AS (
            SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS object, a.grantee
              FROM ours o JOIN pg_class c ON c.relnamespace = o.schema AND c.relowner = o.owner, aclexplode(c.relacl) a
            UNION
            SELECT 'TABLE', c.oid::regclass::text, a.grantee
              FROM ours o JOIN pg_class c ON c.relnamespace = o.schema AND c.relowner = o.owner
              JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
            UNION
            SELECT 'ROUTINE', p.oid::regprocedure::text, a.grantee
              FROM ours o JOIN pg_proc p ON p.pronamespace = o.schema AND p.proowner = o.owner, aclexplode(p.proacl) a
        )
        SELECT h.kind, h.object, g.rolname FROM held h JOIN pg_roles g ON g.oid = h.grantee
         WHERE g.rolname IN ('dispatch_submitter', 'dispatch_reviewer', 'dispatch_worker') ORDER BY 2, 3
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %I', r.kind, r.object, r.rolname);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION revoke_rights() FROM PUBLIC;

-- The rules on rows that are not in force as `rights` has them, and those that are in force and should
-- not be. What a rule was made of is its comment.
CREATE FUNCTION rules_to_put() RETURNS TABLE (object text, name text, seen text, written text, source text)
LANGUAGE sql STABLE AS $$
    WITH wanted AS (
        SELECT format('%I.%I', current_schema(), x.object)::regclass::oid AS tab, 'dispatch_' || x.role AS name,
               x.seen, coalesce(x.written, x.seen) AS written,
               format(E'seen: %s\nwritten: %s', x.seen, coalesce(x.written, x.seen)) AS source
          FROM rights x WHERE x.seen IS NOT NULL
    ), there AS (
        SELECT p.polrelid AS tab, p.polname::text AS name, coalesce(obj_description(p.oid, 'pg_policy'), '') AS source
          FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         WHERE c.relnamespace = quote_ident(current_schema())::regnamespace
           AND p.polname IN ('dispatch_submitter', 'dispatch_reviewer', 'dispatch_worker')
    )
    SELECT tab::regclass::text, name, w.seen, w.written, w.source
      FROM wanted w FULL JOIN there t USING (tab, name)
     WHERE w.source IS DISTINCT FROM t.source ORDER BY 1, 2
$$;

-- Put them into force. A rule that stays costs nothing; another needs its table alone for a moment, and
-- nobody who works is made to wait for much longer: all tables together, or back and once more.
CREATE FUNCTION put_rules() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    patience text := current_setting('lock_timeout');
    tables text := (SELECT string_agg(DISTINCT x.object, ', ') FROM rules_to_put() x);
    tries integer := 0;
    r record;
BEGIN
    WHILE tables IS NOT NULL LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '200ms', true);
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tables);
            PERFORM set_config('lock_timeout', patience, true);
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            tries := tries + 1;
            IF tries >= 40 THEN
                RAISE EXCEPTION 'the tables are in use for long: %', tables
                    USING ERRCODE = 'lock_not_available',
                          HINT = 'Let what uses them end (SELECT * FROM pg_stat_activity), then run: dispatch migrate --roles';
            END IF;
            PERFORM pg_sleep(0.05 + random() * 0.1);
        END;
    END LOOP;
    FOR r IN SELECT * FROM rules_to_put() LOOP
        IF EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = r.object::regclass AND p.polname = r.name) THEN
            EXECUTE format('DROP POLICY %I ON %s', r.name, r.object);
        END IF;
        CONTINUE WHEN r.seen IS NULL;
        -- Grants decide for everybody else, as before there were rules on rows.
        IF NOT EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = r.object::regclass AND p.polname = 'everybody') THEN
            EXECUTE format('CREATE POLICY everybody ON %s USING (true) WITH CHECK (true)', r.object);
        END IF;
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', r.object);
        EXECUTE format('CREATE POLICY %I ON %s AS RESTRICTIVE TO %I USING (%s) WITH CHECK (%s)',
                       r.name, r.object, r.name, r.seen, r.written);
        EXECUTE format('COMMENT ON POLICY %I ON %s IS %L', r.name, r.object, r.source);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION put_rules() FROM PUBLIC;

-- Make the roles that are not there, and give all of them the rights in this database that the table
-- lists, no more and no less. Harmless to repeat, and at once in several databases of a cluster. Gives
-- the names of the roles it made.
CREATE OR REPLACE FUNCTION grant_rights() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    here text := current_schema();
    r record;
    made text[] := '{}';
BEGIN
    LOCK TABLE rights IN SHARE ROW EXCLUSIVE MODE;
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

    -- First what may wait for others.
    PERFORM put_rules();
    PERFORM revoke_rights();
    FOR r IN SELECT DISTINCT 'dispatch_' || x.role AS name FROM rights x ORDER BY 1 LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', here, r.name);
    END LOOP;
    FOR r IN SELECT x.*, 'dispatch_' || x.role AS name FROM rights x ORDER BY x.object, x.role LOOP
        EXECUTE format('GRANT %s ON %s %I.%I TO %I', r.privileges, r.kind, here, r.object, r.name);
    END LOOP;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (session_user, 'rights.grant', 'rights', jsonb_build_object('made', made));
    RETURN made;
END $$;

-- ---------------------------------------------------------------- names mean what they mean here

-- A function without a path of its own takes names as its caller's session does, which may put tables,
-- functions and operators of its own before ours: fatal for a check, such as a trigger's or a rule's.
-- Functions in SQL are bound to what their names mean now (and can still be inlined); those in PL/pgSQL
-- get a path in which temporary tables come last. A migration that adds one does the same, and a test
-- finds those that do not. By name: there may be functions of others in the schema.
DO $$
DECLARE
    f record;
BEGIN
    -- The one that tells where it is: of the schema, and not of the caller's path.
    EXECUTE format('CREATE OR REPLACE FUNCTION dispatch_channel() RETURNS text LANGUAGE sql STABLE RETURN %L',
                   'dispatch_' || current_schema());
    FOR f IN SELECT pg_get_functiondef(p.oid) AS definition, p.prosrc AS body
               FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('acting_as', 'conversation_free', 'fall_back', 'is_offered', 'limit_of', 'may_go',
                                  'next_seq', 'outcome_payload', 'parked_keys', 'person', 'project_limit',
                                  'promote_later', 'put_under_limit', 'sees_all_tasks', 'spent', 'task_events')
    LOOP
        EXECUTE left(f.definition, strpos(f.definition, E'\nAS $function$')) || 'BEGIN ATOMIC '
                || f.body || E'\n; END';
    END LOOP;
    FOR f IN SELECT p.oid::regprocedure AS signature FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('answer_permission_as', 'append_event', 'approve_change_as', 'cancel_task_as',
                                  'claim_tasks', 'decide_files_as', 'end_overdue', 'fill_agent', 'finish_plain',
                                  'grant_rights', 'guard_change_move', 'keep_project_limit', 'let_out', 'lock_change',
                                  'maintain', 'promote_parked', 'put_rules', 'refuse_change', 'refuse_decision',
                                  'refuse_delete_of_open', 'refuse_own_work', 'refuse_second_answer', 'refuse_state',
                                  'refuse_task_of_others', 'refuse_unseen', 'reject_change_as', 'request_changes_as',
                                  'requeue_task_as', 'revoke_rights', 'ring_bell', 'rules_to_put', 'take_waiting',
                                  'tell_of_limit', 'undo_change_as')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f.signature, current_schema());
    END LOOP;
END $$;
