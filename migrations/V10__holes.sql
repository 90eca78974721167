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
