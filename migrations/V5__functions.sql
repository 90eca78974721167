-- Operations by SQL, used by every other door too: cancel_task, requeue_task, approve_change,
-- reject_change, request_changes, answer_permission; and the view task_status.
-- Error codes: P0002 no such row, 55000 not in a state for it, 22023 bad argument, 40001 stale digest.

-- Append one event to the stream of a task that no attempt owns now.
CREATE FUNCTION append_event(of_task bigint, in_attempt smallint, event_kind text, event_payload jsonb)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    SELECT greatest(coalesce((SELECT max(e.seq) FROM events e WHERE e.task_id = of_task), 1),
                    coalesce((SELECT o.seq FROM outcomes o WHERE o.task_id = of_task), 1)) + 1 INTO number;
    INSERT INTO events (task_id, seq, attempt, kind, payload)
    VALUES (of_task, number, in_attempt, event_kind, event_payload);
    PERFORM pg_notify(dispatch_channel(), 'events ' || of_task);
    RETURN number;
END $$;

CREATE FUNCTION next_seq(of_task bigint) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT coalesce((SELECT max(e.seq) FROM events e WHERE e.task_id = of_task), 1) + 1 $$;

-- What the attempts of a task used, as far as it is known. Costs in two currencies have no sum.
CREATE FUNCTION spent(of_task bigint, OUT tokens bigint, OUT cost numeric) LANGUAGE sql STABLE AS $$
    SELECT sum(u.total_tokens)::bigint,
           CASE WHEN count(DISTINCT u.currency) FILTER (WHERE u.cost IS NOT NULL) <= 1 THEN sum(u.cost) END
      FROM usage_reports u WHERE u.task_id = of_task
$$;

-- Take a waiting task out of the table that holds it; the number of the attempt that would have
-- come next, null when it does not wait.
CREATE FUNCTION take_waiting(wanted bigint) RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    t tasks%ROWTYPE;
    next_attempt smallint;
BEGIN
    SELECT * INTO t FROM tasks WHERE id = wanted;
    -- It may wait for any agent by now: fallbacks are named by agents too.
    DELETE FROM ready_tasks r
     WHERE r.agent = ANY (ARRAY(SELECT c.name FROM catalogue_agents c) || t.agent || t.fallback)
       AND r.priority = t.priority
       AND r.run_at = t.run_at AND r.task_id = t.id
    RETURNING r.attempt INTO next_attempt;
    IF NOT FOUND THEN
        DELETE FROM later_tasks WHERE task_id = wanted RETURNING attempt INTO next_attempt;
    END IF;
    IF NOT FOUND THEN
        DELETE FROM parked_tasks WHERE task_id = wanted RETURNING attempt INTO next_attempt;
    END IF;
    RETURN next_attempt;
END $$;

CREATE FUNCTION cancel_task(wanted bigint, reason text DEFAULT NULL, actor text DEFAULT session_user)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    tries smallint;
BEGIN
    PERFORM 1 FROM tasks WHERE id = wanted;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no task %', wanted USING ERRCODE = 'no_data_found';
    END IF;
    -- A claim may move the row between the looks: look again until one of them finds it.
    FOR look IN 1..5 LOOP
        tries := take_waiting(wanted) - 1;
        IF tries IS NOT NULL THEN
            INSERT INTO outcomes (task_id, seq, attempt, state, error_class, error, cancel_by, cost_tokens, cost)
            SELECT wanted, next_seq(wanted), tries, 'cancelled', 'cancelled', reason, actor, s.tokens, s.cost
              FROM spent(wanted) s;
            INSERT INTO audit_log (actor, action, subject, detail)
            VALUES (actor, 'task.cancel', 'task ' || wanted, jsonb_build_object('reason', reason));
            PERFORM pg_notify(dispatch_channel(), 'events ' || wanted);
            -- What waited behind it in its conversation, or for its place under a limit, may go.
            PERFORM ring_bell('later');
            RETURN 'cancelled';
        END IF;
        UPDATE leases SET cancel_requested_at = clock_timestamp(), cancel_by = actor, cancel_reason = reason
         WHERE task_id = wanted AND cancel_requested_at IS NULL;
        IF FOUND THEN
            INSERT INTO audit_log (actor, action, subject, detail)
            VALUES (actor, 'task.cancel', 'task ' || wanted, jsonb_build_object('reason', reason));
            PERFORM pg_notify(dispatch_channel(), 'cancel ' || wanted);
            RETURN 'cancel_requested';
        END IF;
        PERFORM 1 FROM leases WHERE task_id = wanted;
        IF FOUND THEN
            RETURN 'cancel_requested';
        END IF;
        PERFORM 1 FROM outcomes WHERE task_id = wanted;
        IF FOUND THEN
            RETURN 'already_over';
        END IF;
    END LOOP;
    RAISE EXCEPTION 'task % moved between states while it was being cancelled', wanted
        USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
END $$;
COMMENT ON FUNCTION cancel_task IS 'cancelled: it had not begun; cancel_requested: its worker stops it now; already_over: nothing to do.';

-- Run an ended task once more. Its terminal event becomes an ordinary event of the history.
CREATE FUNCTION requeue_task(wanted bigint, actor text DEFAULT session_user)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    o outcomes%ROWTYPE;
BEGIN
    -- Change first, outcome second: the order in which a review locks them.
    PERFORM 1 FROM pending_changes c WHERE c.task_id = wanted FOR UPDATE;
    PERFORM 1 FROM pending_changes c WHERE c.task_id = wanted AND c.state = 'approved';
    IF FOUND THEN
        RAISE EXCEPTION 'the change of task % is approved and not applied yet', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Wait until it is applied, or withdraw it: SELECT reject_change(id).';
    END IF;
    DELETE FROM outcomes WHERE task_id = wanted RETURNING * INTO o;
    IF NOT FOUND THEN
        PERFORM 1 FROM tasks WHERE id = wanted;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no task %', wanted USING ERRCODE = 'no_data_found';
        END IF;
        RAISE EXCEPTION 'task % has not ended', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only an ended task can be requeued; cancel it first.';
    END IF;
    INSERT INTO events (task_id, seq, attempt, kind, payload, at)
    VALUES (wanted, o.seq, o.attempt, 'task_' || o.state, outcome_payload(o), o.ended_at);
    UPDATE pending_changes SET state = 'superseded', decided_at = now(), decided_by = actor
     WHERE task_id = wanted AND state IN ('pending', 'conflicted');
    INSERT INTO later_tasks (run_at, task_id, attempt, uncharged, reason)
    VALUES (now(), wanted, o.attempt + 1, o.attempt, 'requeued by ' || actor);
    INSERT INTO deadlines (task_id, deadline)
    SELECT t.id, t.deadline FROM tasks t WHERE t.id = wanted AND t.deadline IS NOT NULL
    ON CONFLICT DO NOTHING;
    PERFORM append_event(wanted, o.attempt, 'task_requeued', jsonb_build_object('by', actor));
    INSERT INTO audit_log (actor, action, subject) VALUES (actor, 'task.requeue', 'task ' || wanted);
    PERFORM pg_notify(dispatch_channel(), 'later');
END $$;

CREATE FUNCTION outcome_payload(o outcomes) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'state', o.state, 'error_class', o.error_class, 'error', o.error,
        'output_summary', o.output_summary, 'cost_tokens', o.cost_tokens, 'cost', o.cost::text,
        'attempts', o.attempt, 'cancelled_by', o.cancel_by,
        'change_id', (SELECT max(c.id) FROM pending_changes c WHERE c.task_id = o.task_id)))
$$;

-- The stream of a task from a number on: the stored events and, at its place, the terminal one.
CREATE FUNCTION task_events(of_task bigint, after_seq bigint, most integer)
RETURNS TABLE (seq bigint, attempt smallint, kind text, payload jsonb, at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT * FROM (
        SELECT 1::bigint, 0::smallint, 'task_submitted',
               jsonb_build_object('project', t.project, 'agent', t.agent, 'by', t.submitted_by), t.created_at
          FROM tasks t WHERE t.id = of_task AND after_seq < 1
        UNION ALL
        (SELECT e.seq, e.attempt, e.kind, e.payload, e.at FROM events e
          WHERE e.task_id = of_task AND e.seq > after_seq ORDER BY e.seq LIMIT most)
        UNION ALL
        SELECT o.seq, o.attempt, 'task_' || o.state, outcome_payload(o), o.ended_at
          FROM outcomes o WHERE o.task_id = of_task AND o.seq > after_seq
    ) AS stream (seq, attempt, kind, payload, at)
    ORDER BY seq LIMIT most
$$;

-- How each decision begins: the change, locked; refused when it is not the one that was seen, or not
-- in a state for it.
CREATE FUNCTION lock_change(wanted bigint) RETURNS pending_changes LANGUAGE plpgsql AS $$
DECLARE
    c pending_changes%ROWTYPE;
BEGIN
    SELECT * INTO c FROM pending_changes WHERE id = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no change %', wanted USING ERRCODE = 'no_data_found';
    END IF;
    RETURN c;
END $$;

CREATE FUNCTION refuse_unseen(c pending_changes, seen_digest text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF c.digest IS DISTINCT FROM seen_digest THEN
        RAISE EXCEPTION 'change % is not the one you saw: its digest is %', c.id, c.digest
            USING ERRCODE = 'serialization_failure', HINT = 'Look at it again and name that digest.';
    END IF;
END $$;

CREATE FUNCTION refuse_state(c pending_changes, VARIADIC allowed text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT c.state = ANY (allowed) THEN
        RAISE EXCEPTION 'change % is already %', c.id, c.state USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END $$;

CREATE FUNCTION approve_change(wanted bigint, seen_digest text, only_files text[] DEFAULT NULL,
                               actor text DEFAULT session_user, comment text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c pending_changes%ROWTYPE;
    stranger text;
BEGIN
    c := lock_change(wanted);
    PERFORM refuse_unseen(c, seen_digest);
    PERFORM refuse_state(c, 'pending', 'conflicted');
    SELECT w INTO stranger FROM unnest(only_files) w
     WHERE NOT EXISTS (SELECT 1 FROM pending_change_files f WHERE f.change_id = wanted AND f.path = w) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'change % has no file "%"', wanted, stranger USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF only_files IS NULL THEN
        UPDATE pending_change_files SET state = 'approved' WHERE change_id = wanted AND state <> 'rejected';
    ELSE
        UPDATE pending_change_files
           SET state = CASE WHEN path = ANY (only_files) THEN 'approved' ELSE 'rejected' END
         WHERE change_id = wanted;
    END IF;
    PERFORM 1 FROM pending_change_files WHERE change_id = wanted AND state = 'approved';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nothing of change % would be approved', wanted
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Every file is rejected: reject the change instead.';
    END IF;
    UPDATE pending_changes SET state = 'approved', decided_at = now(), decided_by = actor,
           conflicts = NULL, apply_error = NULL, apply_token = NULL, apply_until = NULL WHERE id = wanted;
    INSERT INTO reviews (change_id, actor, verdict, files, digest, comment)
    VALUES (wanted, actor, 'approved', only_files, seen_digest, comment);
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (actor, 'change.approve', 'change ' || wanted, jsonb_build_object('digest', seen_digest, 'files', only_files));
    PERFORM change_event(c.task_id, c.attempt, 'change_approved', jsonb_build_object('change_id', wanted, 'by', actor));
    PERFORM pg_notify(dispatch_channel(), 'change ' || wanted);
END $$;

-- An event about a change: part of the task's stream, after the terminal event.
CREATE FUNCTION change_event(of_task bigint, in_attempt smallint, event_kind text, event_payload jsonb)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM outcomes WHERE task_id = of_task FOR UPDATE;
    IF FOUND THEN
        PERFORM append_event(of_task, in_attempt, event_kind, event_payload);
    END IF;
END $$;

-- Also takes an approval back, as long as nobody has begun to apply the change.
CREATE FUNCTION reject_change(wanted bigint, reason text DEFAULT NULL, actor text DEFAULT session_user)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c pending_changes%ROWTYPE;
BEGIN
    c := lock_change(wanted);
    PERFORM refuse_state(c, 'pending', 'approved', 'conflicted');
    -- The branch may have moved, or may move in this moment: only a worker finds out which.
    IF c.state = 'approved' AND c.apply_token IS NOT NULL THEN
        RAISE EXCEPTION 'change % is being applied', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'See in a moment what became of it; if its worker died, another one finds out first.';
    END IF;
    UPDATE pending_changes SET state = 'rejected', decided_at = now(), decided_by = actor WHERE id = wanted;
    UPDATE pending_change_files SET state = 'rejected' WHERE change_id = wanted;
    INSERT INTO reviews (change_id, actor, verdict, digest, comment)
    VALUES (wanted, actor, 'rejected', c.digest, reason);
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (actor, 'change.reject', 'change ' || wanted, jsonb_build_object('reason', reason));
    PERFORM change_event(c.task_id, c.attempt, 'change_rejected',
                         jsonb_build_object('change_id', wanted, 'by', actor, 'reason', reason));
END $$;

-- Ask that an applied change be taken out of its branch again; a worker does it, as long as nothing
-- stands on it there.
CREATE FUNCTION undo_change(wanted bigint, reason text DEFAULT NULL, actor text DEFAULT session_user)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c pending_changes%ROWTYPE;
BEGIN
    c := lock_change(wanted);
    IF c.state <> 'applied' THEN
        RAISE EXCEPTION 'change % is %, not applied', wanted, c.state
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Only an applied change can be undone; one that is approved can be rejected.';
    END IF;
    IF c.undo_asked_at IS NOT NULL THEN
        RAISE EXCEPTION 'change % is being undone', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'See in a moment what became of it.';
    END IF;
    UPDATE pending_changes SET undo_asked_at = now(), undo_asked_by = actor, apply_error = NULL,
           apply_token = NULL, apply_until = NULL
     WHERE id = wanted;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (actor, 'change.undo', 'change ' || wanted, jsonb_build_object('reason', reason));
    PERFORM change_event(c.task_id, c.attempt, 'change_undo_asked',
                         jsonb_build_object('change_id', wanted, 'by', actor, 'reason', reason));
    PERFORM pg_notify(dispatch_channel(), 'change ' || wanted);
END $$;

-- Set single files aside (or take them back) before the change is approved.
CREATE FUNCTION decide_files(wanted bigint, seen_digest text, paths text[], verdict text,
                             actor text DEFAULT session_user, comment text DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    c pending_changes%ROWTYPE;
    hit integer;
BEGIN
    IF verdict NOT IN ('approved', 'rejected', 'pending') THEN
        RAISE EXCEPTION 'verdict is approved, rejected or pending, not "%"', verdict USING ERRCODE = 'invalid_parameter_value';
    END IF;
    c := lock_change(wanted);
    PERFORM refuse_unseen(c, seen_digest);
    PERFORM refuse_state(c, 'pending', 'conflicted');
    UPDATE pending_change_files SET state = verdict WHERE change_id = wanted AND path = ANY (paths);
    GET DIAGNOSTICS hit = ROW_COUNT;
    IF hit < cardinality(paths) THEN
        RAISE EXCEPTION 'change % does not have all of these files', wanted USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF verdict <> 'pending' THEN
        INSERT INTO reviews (change_id, actor, verdict, files, digest, comment)
        VALUES (wanted, actor, verdict, paths, seen_digest, comment);
    END IF;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (actor, 'change.decide_files', 'change ' || wanted, jsonb_build_object('files', paths, 'verdict', verdict));
    RETURN hit;
END $$;

-- Keep the change, and send a follow-up task into the same conversation on top of it.
CREATE FUNCTION request_changes(wanted bigint, comment text, actor text DEFAULT session_user)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    c pending_changes%ROWTYPE;
    follow_up bigint;
BEGIN
    c := lock_change(wanted);
    PERFORM refuse_state(c, 'pending', 'conflicted');
    IF c.follow_up_task_id IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = c.follow_up_task_id) THEN
        RAISE EXCEPTION 'task % is already working on change %', c.follow_up_task_id, wanted
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Wait for it, or cancel it first.';
    END IF;
    INSERT INTO tasks (project, input, agent, model, mode_id, thinking_option_id, conversation_id, priority,
                       max_attempts, timeout, idle_timeout, limit_key, fallback, submitted_by)
    SELECT t.project, comment, t.agent, t.model, t.mode_id, t.thinking_option_id, coalesce(t.conversation_id, t.id),
           t.priority, t.max_attempts, t.timeout, t.idle_timeout, t.limit_key, t.fallback, actor
      FROM tasks t WHERE t.id = c.task_id
    RETURNING id INTO follow_up;
    UPDATE pending_changes SET follow_up_task_id = follow_up WHERE id = wanted;
    INSERT INTO reviews (change_id, actor, verdict, digest, comment)
    VALUES (wanted, actor, 'changes_requested', c.digest, comment);
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (actor, 'change.request_changes', 'change ' || wanted, jsonb_build_object('follow_up', follow_up));
    PERFORM change_event(c.task_id, c.attempt, 'changes_requested',
                         jsonb_build_object('change_id', wanted, 'by', actor, 'follow_up_task_id', follow_up));
    RETURN follow_up;
END $$;

CREATE FUNCTION answer_permission(wanted bigint, answer text, actor text DEFAULT session_user, why text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_status text;
BEGIN
    IF answer NOT IN ('allow', 'deny') THEN
        RAISE EXCEPTION 'the answer is allow or deny, not "%"', answer USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE permission_requests
       SET status = CASE answer WHEN 'allow' THEN 'allowed' ELSE 'denied' END,
           decided_by = actor, note = why, decided_at = clock_timestamp()
     WHERE id = wanted AND status = 'pending' AND (deadline_at IS NULL OR deadline_at > clock_timestamp());
    IF NOT FOUND THEN
        SELECT status INTO now_status FROM permission_requests WHERE id = wanted;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no permission request %', wanted USING ERRCODE = 'no_data_found';
        END IF;
        RAISE EXCEPTION 'permission request % is closed (%)', wanted,
            CASE now_status WHEN 'pending' THEN 'its time is over' ELSE now_status END
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (actor, 'permission.answer', 'permission ' || wanted, jsonb_build_object('answer', answer));
    PERFORM pg_notify(dispatch_channel(), 'permission ' || wanted);
END $$;

-- Where every task stands. A task in none of the other tables is ready.
CREATE VIEW task_status AS
SELECT t.id, t.project,
       coalesce(t.conversation_id, t.id) AS conversation_id,
       CASE WHEN o.task_id IS NOT NULL THEN o.state
            WHEN l.task_id IS NOT NULL THEN 'running' ELSE 'pending' END AS state,
       l.phase,
       CASE WHEN o.task_id IS NOT NULL OR l.task_id IS NOT NULL THEN NULL
            WHEN w.task_id IS NOT NULL THEN w.reason
            WHEN k.task_id IS NOT NULL THEN
                 CASE WHEN k.conversation_id IS NOT NULL THEN 'the conversation is busy'
                      ELSE 'limit ' || k.limit_key END
            WHEN NOT EXISTS (SELECT 1 FROM agent_offers a WHERE a.name = t.agent
                              AND a.status = 'ready' AND a.expires_at > now())
                 THEN CASE WHEN EXISTS (SELECT 1 FROM agent_offers a WHERE a.name = t.agent
                                         AND a.status = 'loading' AND a.expires_at > now())
                           THEN 'agent ' || t.agent || ' is being probed'
                           ELSE 'no live worker offers agent ' || t.agent END
            ELSE 'a free slot' END AS waiting_reason,
       CASE WHEN w.task_id IS NOT NULL THEN w.run_at END AS runs_at,
       t.agent, a.execution_path, coalesce(a.model, t.model) AS model,
       coalesce(o.attempt, l.attempt, w.attempt - 1, k.attempt - 1, 0) AS attempts,
       o.error_class, o.error, o.output_summary, o.cost_tokens, o.cost,
       c.id AS change_id, c.state AS change_state,
       t.priority, t.submitted_by, t.created_at, t.run_at,
       coalesce(o.started_at, l.started_at) AS started_at, o.ended_at,
       l.worker_id, l.cancel_requested_at, t.input
  FROM tasks t
  LEFT JOIN outcomes o ON o.task_id = t.id
  LEFT JOIN leases l ON l.task_id = t.id
  LEFT JOIN later_tasks w ON w.task_id = t.id
  LEFT JOIN parked_tasks k ON k.task_id = t.id
  LEFT JOIN LATERAL (SELECT x.execution_path, x.model FROM attempts x WHERE x.task_id = t.id
                      ORDER BY x.attempt DESC LIMIT 1) a ON true
  LEFT JOIN LATERAL (SELECT p.id, p.state FROM pending_changes p WHERE p.task_id = t.id
                      ORDER BY p.id DESC LIMIT 1) c ON true;
