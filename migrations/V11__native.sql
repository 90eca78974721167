-- What an agent that the worker runs itself needs to be durable: what was said to a model and what each
-- request used, what people send while it works, budgets, pauses of providers, work that goes on from
-- where an attempt left it.

-- ---------------------------------------------------------------- budgets

ALTER TABLE tasks ADD COLUMN max_steps integer, ADD COLUMN max_tokens bigint, ADD COLUMN max_cost numeric;
COMMENT ON COLUMN tasks.max_steps IS 'Requests to the model that all attempts together may make; null: no such limit. Only agents that count hold it.';
COMMENT ON COLUMN tasks.max_tokens IS 'Tokens of all kinds that all attempts together may use; null: no such limit.';
COMMENT ON COLUMN tasks.max_cost IS 'What all attempts together may cost, in the currency of the price table; null: no such limit.';
UPDATE rights SET privileges = replace(privileges, 'base_ref, submitted_by)',
                                       'base_ref, max_steps, max_tokens, max_cost, submitted_by)')
 WHERE role = 'submitter' AND object = 'tasks';

-- ---------------------------------------------------------------- tables

ALTER TABLE conversations ADD COLUMN todos jsonb, ADD COLUMN compact_asked_at timestamptz,
    ADD COLUMN compact_asked_by text;
COMMENT ON COLUMN conversations.todos IS 'What the agent has written down to do.';
COMMENT ON COLUMN conversations.compact_asked_at IS 'Somebody wants a summary to stand for what was said; null again once the agent knows.';

CREATE TABLE messages (
    conversation_id bigint NOT NULL,
    seq             bigint NOT NULL,
    ord             bigint NOT NULL,
    task_id         bigint NOT NULL,
    attempt         smallint NOT NULL,
    step            integer NOT NULL,
    role            text NOT NULL CHECK (role IN ('user', 'assistant', 'tool')),
    parts           jsonb NOT NULL,
    replaced_by     bigint,
    lost_at         timestamptz,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (conversation_id, seq)
);
CREATE INDEX messages_live ON messages (conversation_id, ord) WHERE replaced_by IS NULL AND lost_at IS NULL;
COMMENT ON TABLE messages IS 'What was said to a model and by it, word for word; seq has no gaps. items is the same for people.';
COMMENT ON COLUMN messages.ord IS 'Place among what the model sees: seq, and for a summary that of the last message it stands for.';
COMMENT ON COLUMN messages.replaced_by IS 'seq of the summary that stands for it.';
COMMENT ON COLUMN messages.lost_at IS 'The work of its attempt was lost, so that the model must not believe to have done it.';

CREATE TABLE steps (
    task_id            bigint NOT NULL,
    attempt            smallint NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('model', 'compaction')),
    n                  integer NOT NULL,
    conversation_id    bigint NOT NULL,
    model              text NOT NULL,
    finish             text NOT NULL,
    input_tokens       bigint,
    output_tokens      bigint,
    cache_read_tokens  bigint,
    cache_write_tokens bigint,
    reasoning_tokens   bigint,
    total_tokens       bigint,
    context_tokens     bigint,
    cost               numeric,
    currency           text,
    raw                jsonb,
    ttft_ms            bigint,
    decode_ms          bigint,
    request_ms         bigint,
    tools_ms           bigint,
    total_ms           bigint,
    retries            integer NOT NULL DEFAULT 0,
    at                 timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (task_id, attempt, kind, n)
);
CREATE INDEX steps_conversation ON steps (conversation_id, at) WHERE kind = 'model';
COMMENT ON TABLE steps IS 'One row per request to a model; NULL means unknown, never zero. input_tokens excludes cached ones.';

CREATE TABLE inbox (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_id bigint NOT NULL,
    text            text NOT NULL,
    sent_by         text NOT NULL,
    sent_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    state           text NOT NULL CHECK (state IN ('waiting', 'held', 'delivered', 'carried', 'cancelled')),
    task_id         bigint,
    attempt         smallint,
    delivered_at    timestamptz,
    message_seq     bigint
);
CREATE INDEX inbox_conversation ON inbox (conversation_id, id);
CREATE INDEX inbox_open ON inbox (conversation_id, id) WHERE state IN ('waiting', 'held');
COMMENT ON TABLE inbox IS 'What people sent into conversations: SELECT * FROM send_message(task, text).';
COMMENT ON COLUMN inbox.state IS 'waiting: for a task that is open; held: for the next task; delivered: the agent has it; carried: it became a task; cancelled.';
COMMENT ON COLUMN inbox.task_id IS 'The task that it waits for, was delivered in, or became.';

CREATE TABLE carried_work (
    task_id       bigint PRIMARY KEY,
    attempt       smallint NOT NULL,
    base_commit   text NOT NULL,
    result_commit text NOT NULL,
    changed       boolean NOT NULL,
    pack          bytea
);
ALTER TABLE carried_work ALTER COLUMN pack SET STORAGE EXTERNAL;
COMMENT ON TABLE carried_work IS 'What an attempt that goes back left, so that the next one of its task goes on from it, on any host.';

CREATE TABLE provider_pauses (
    provider  text PRIMARY KEY,
    until     timestamptz NOT NULL,
    class     text NOT NULL CHECK (class IN ('rate_limited', 'auth', 'billing', 'overloaded')),
    message   text NOT NULL,
    worker_id uuid,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE provider_pauses IS 'Providers that nobody asks before the time is over: SELECT resume_provider(name) ends a pause.';

-- ---------------------------------------------------------------- what people sent

-- Hold an open task of a conversation where it stands, the one that runs if one does: whatever moves or
-- ends it waits for this transaction, and sees what it wrote. NULL: none is open. What waits for no lock
-- of ours is found again at its next place.
CREATE FUNCTION hold_open_task(of_conversation bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    unfinished bigint[];
    held bigint;
    t record;
BEGIN
    FOR look IN 1..20 LOOP
        unfinished := ARRAY(SELECT x.id FROM tasks x
                             WHERE (x.id = of_conversation OR x.conversation_id = of_conversation)
                               AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = x.id)
                             ORDER BY x.id);
        IF unfinished = '{}' THEN
            RETURN NULL;
        END IF;
        SELECT l.task_id INTO held FROM leases l WHERE l.task_id = ANY (unfinished) LIMIT 1 FOR SHARE;
        IF FOUND THEN
            RETURN held;
        END IF;
        FOR t IN SELECT x.id, x.agent, x.fallback, x.priority, x.run_at FROM tasks x
                  WHERE x.id = ANY (unfinished) ORDER BY x.id
        LOOP
            PERFORM 1 FROM parked_tasks p WHERE p.task_id = t.id FOR SHARE;
            IF FOUND THEN
                RETURN t.id;
            END IF;
            PERFORM 1 FROM later_tasks w WHERE w.task_id = t.id FOR SHARE;
            IF FOUND THEN
                RETURN t.id;
            END IF;
            PERFORM 1 FROM ready_tasks r
              WHERE r.agent = ANY (ARRAY(SELECT c.name FROM catalogue_agents c) || t.agent || t.fallback)
                AND r.priority = t.priority AND r.run_at = t.run_at AND r.task_id = t.id FOR SHARE;
            IF FOUND THEN
                RETURN t.id;
            END IF;
        END LOOP;
    END LOOP;
    RAISE EXCEPTION 'conversation % moved between states while a message was sent to it', of_conversation
        USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
END $$;

-- A task that goes on after another one, in its conversation and under its terms.
CREATE FUNCTION follow_up(of_task bigint, with_input text, by text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    INSERT INTO tasks (project, input, agent, model, mode_id, thinking_option_id, conversation_id, priority,
                       max_attempts, timeout, idle_timeout, limit_key, fallback, max_steps, max_tokens, max_cost,
                       submitted_by)
    SELECT t.project, with_input, t.agent, t.model, t.mode_id, t.thinking_option_id, coalesce(t.conversation_id, t.id),
           t.priority, t.max_attempts, t.timeout, t.idle_timeout, t.limit_key, t.fallback, t.max_steps, t.max_tokens,
           t.max_cost, by
      FROM tasks t WHERE t.id = of_task
    RETURNING id INTO made;
    RETURN made;
END $$;

-- The messages of a conversation that nobody took, locked: the first of them, as many as one text may hold.
CREATE FUNCTION lock_messages(of_conversation bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM inbox i WHERE i.conversation_id = of_conversation AND i.state IN ('waiting', 'held')
      ORDER BY i.id FOR UPDATE;
    RETURN ARRAY(SELECT x.id
                   FROM (SELECT i.id, sum(octet_length(i.text) + 2) OVER (ORDER BY i.id) AS bytes
                           FROM inbox i
                          WHERE i.conversation_id = of_conversation AND i.state IN ('waiting', 'held')) x
                  WHERE x.bytes <= 1048578 ORDER BY x.id);
END $$;

-- For whoever ends a task, in the same transaction: messages that nobody took become one task that goes on
-- after a completed one (its id is returned), and are held for the next task after any other. An event
-- before the terminal one tells of it, which nobody has read yet: only an outcome of this very transaction
-- is settled. What is too much for one text waits for the end of the follow-up.
CREATE FUNCTION settle_messages(of_task bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    conversation bigint := (SELECT coalesce(t.conversation_id, t.id) FROM tasks t WHERE t.id = of_task);
    o outcomes%ROWTYPE;
    chosen bigint[];
    letter record;
    next_task bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM inbox i WHERE i.conversation_id = conversation AND i.state IN ('waiting', 'held')) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO o FROM outcomes x WHERE x.task_id = of_task AND x.ended_at = now();
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF o.state = 'completed' THEN
        chosen := lock_messages(conversation);
        SELECT string_agg(i.text, E'\n\n' ORDER BY i.id) AS text, string_agg(DISTINCT i.sent_by, ', ') AS people,
               min(i.sent_by) AS one
          INTO letter FROM inbox i WHERE i.id = ANY (chosen);
        IF letter.text IS NOT NULL THEN
            BEGIN
                next_task := follow_up(of_task, letter.text, CASE WHEN octet_length(letter.people) <= 200
                                                                  THEN letter.people ELSE letter.one END);
            EXCEPTION WHEN integrity_constraint_violation THEN
                NULL; -- Its project is gone. That costs the task its follow-up and not its end.
            END;
        END IF;
    END IF;
    IF next_task IS NULL THEN
        UPDATE inbox i SET state = 'held' WHERE i.conversation_id = conversation AND i.state = 'waiting';
        RETURN NULL;
    END IF;
    UPDATE inbox i SET state = 'carried', task_id = next_task WHERE i.id = ANY (chosen);
    UPDATE inbox i SET state = 'waiting', task_id = next_task
     WHERE i.conversation_id = conversation AND i.state IN ('waiting', 'held');
    UPDATE outcomes x SET seq = x.seq + 1 WHERE x.task_id = of_task;
    INSERT INTO events (task_id, seq, attempt, kind, payload)
    VALUES (of_task, o.seq, o.attempt, 'message_carried', jsonb_build_object('message_ids', chosen, 'task_id', next_task));
    RETURN next_task;
END $$;

-- A message for the agent of a conversation, and what became of it. None is left waiting where no task is
-- open: this holds an open one where it stands, and its end looks at what was sent.
CREATE FUNCTION send_message(target bigint, text text, actor text DEFAULT session_user)
RETURNS TABLE (message_id bigint, state text, task_id bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    conversation bigint := conversation_of(target);
    sender text := acting_as(send_message.actor);
    letter text := send_message.text;
    last record;
BEGIN
    PERFORM refuse_conversation_of_others(conversation);
    IF letter IS NULL OR letter !~ '\S' THEN
        RAISE EXCEPTION 'the message is empty'
            USING ERRCODE = 'check_violation', HINT = 'Say what the agent shall know.';
    END IF;
    IF octet_length(letter) > 262144 THEN
        RAISE EXCEPTION 'the message has % bytes; 262144 are allowed', octet_length(letter)
            USING ERRCODE = 'check_violation',
                  HINT = 'Put long material into a file of the repository and name the file in the message.';
    END IF;
    IF octet_length(sender) > 200 THEN
        RAISE EXCEPTION 'a name is too long: actor may have 200 bytes' USING ERRCODE = 'check_violation';
    END IF;
    -- One sender at a time in a conversation, or two would begin a task each. Nobody else locks this row.
    PERFORM 1 FROM tasks t WHERE t.id = conversation FOR UPDATE;
    task_id := hold_open_task(conversation);
    IF task_id IS NOT NULL THEN
        state := 'waiting';
    ELSE
        SELECT t.id, o.state INTO last FROM tasks t JOIN outcomes o ON o.task_id = t.id
         WHERE t.id = conversation OR t.conversation_id = conversation
         ORDER BY o.ended_at DESC, t.id DESC LIMIT 1;
        IF last.state = 'completed' THEN
            state := 'carried';
            task_id := follow_up(last.id, letter, sender);
        ELSE
            state := 'held';
        END IF;
    END IF;
    INSERT INTO inbox (conversation_id, text, sent_by, state, task_id)
    VALUES (conversation, letter, sender, send_message.state, send_message.task_id) RETURNING id INTO message_id;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (sender, 'message.send', 'message ' || message_id,
            jsonb_strip_nulls(jsonb_build_object('conversation_id', conversation, 'state', send_message.state,
                                                 'task_id', send_message.task_id)));
    IF send_message.state = 'waiting' THEN
        PERFORM pg_notify(dispatch_channel(), 'inbox ' || conversation);
        -- A claim, or what lets tasks out, may just have gone past the row that was held here.
        IF NOT EXISTS (SELECT 1 FROM leases l WHERE l.task_id = send_message.task_id) THEN
            PERFORM ring_bell('moved');
            PERFORM ring_bell('later');
        END IF;
    END IF;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION send_message IS 'waiting: the agent gets it while it works, or it becomes a follow-up when that task completes; carried: it is a follow-up now; held: it goes with the next task of the conversation.';

-- The conversation that a task belongs to.
CREATE FUNCTION conversation_of(target bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_id bigint;
BEGIN
    SELECT coalesce(t.conversation_id, t.id) INTO found_id FROM tasks t WHERE t.id = target;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no task %', target USING ERRCODE = 'no_data_found';
    END IF;
    RETURN found_id;
END $$;

-- Whoever may go on in a conversation with a task may do it with a message: who began it, and reviewers.
CREATE FUNCTION refuse_conversation_of_others(conversation bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(session_user, current_user, 'MEMBER')
       AND NOT pg_has_role(session_user, 'dispatch_reviewer', 'USAGE')
       AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.id = conversation AND t.submitted_by = session_user) THEN
        RAISE EXCEPTION 'conversation % was not begun by you', conversation
            USING ERRCODE = 'insufficient_privilege', HINT = 'Ask who began it, or an operator.';
    END IF;
END $$;

-- Take a message back that no agent has yet. Says what the message is now.
CREATE FUNCTION cancel_message(wanted bigint, actor text DEFAULT session_user) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m inbox%ROWTYPE;
BEGIN
    SELECT * INTO m FROM inbox i WHERE i.id = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no message %', wanted USING ERRCODE = 'no_data_found';
    END IF;
    IF NOT pg_has_role(session_user, current_user, 'MEMBER') AND m.sent_by <> session_user THEN
        RAISE EXCEPTION 'message % was not sent by you', wanted
            USING ERRCODE = 'insufficient_privilege', HINT = 'Ask who sent it, or an operator.';
    END IF;
    IF m.state NOT IN ('waiting', 'held') THEN
        RETURN m.state;
    END IF;
    UPDATE inbox i SET state = 'cancelled' WHERE i.id = wanted;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (acting_as(actor), 'message.cancel', 'message ' || wanted,
            jsonb_build_object('conversation_id', m.conversation_id));
    RETURN 'cancelled';
END $$;
COMMENT ON FUNCTION cancel_message IS 'cancelled: no agent gets it; delivered, carried: too late.';

-- Ask that a summary take the place of what was said. Says when that happens.
CREATE FUNCTION compact_conversation(target bigint, actor text DEFAULT session_user) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    conversation bigint := conversation_of(target);
    who text := acting_as(actor);
BEGIN
    PERFORM refuse_conversation_of_others(conversation);
    IF NOT EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = conversation
                                              AND m.replaced_by IS NULL AND m.lost_at IS NULL) THEN
        RAISE EXCEPTION 'conversation % has no messages to compact', conversation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Only conversations of an agent that the worker runs itself have them, once it has begun.';
    END IF;
    UPDATE conversations c SET compact_asked_at = clock_timestamp(), compact_asked_by = who WHERE c.id = conversation;
    INSERT INTO audit_log (actor, action, subject) VALUES (who, 'conversation.compact', 'conversation ' || conversation);
    PERFORM pg_notify(dispatch_channel(), 'inbox ' || conversation);
    RETURN CASE WHEN EXISTS (SELECT 1 FROM tasks t JOIN leases l ON l.task_id = t.id
                              WHERE t.id = conversation OR t.conversation_id = conversation)
                THEN 'at the next step' ELSE 'when the next turn begins' END;
END $$;

-- Ask a provider again before its pause is over. Says whether there was one.
CREATE FUNCTION resume_provider(name text, actor text DEFAULT session_user) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    p provider_pauses%ROWTYPE;
BEGIN
    DELETE FROM provider_pauses x WHERE x.provider = name RETURNING * INTO p;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (acting_as(actor), 'provider.resume', 'provider ' || name,
            jsonb_build_object('class', p.class, 'until', p.until));
    PERFORM pg_notify(dispatch_channel(), 'providers');
    -- Tasks that wait for it need not wait any longer; their reasons begin with its name.
    UPDATE later_tasks w SET run_at = now() WHERE starts_with(w.reason, 'provider ' || name || ' ') AND w.run_at > now();
    PERFORM ring_bell('later');
    RETURN true;
END $$;

-- ---------------------------------------------------------------- what an attempt does with them

-- For the attempt that holds the lease: what was sent, in order, which is marked as delivered and stored
-- as one message of the user under the number that comes next; and whether somebody wants the conversation
-- to be compacted. No row: the lease is gone. After a lost answer the same number gives the same texts.
CREATE FUNCTION take_messages(of_task bigint, with_token bigint, in_step integer, as_seq bigint)
RETURNS TABLE (texts text[], compact boolean) LANGUAGE plpgsql AS $$
DECLARE
    mine record;
    chosen bigint[];
BEGIN
    SELECT l.attempt, coalesce(t.conversation_id, t.id) AS conversation INTO mine
      FROM leases l JOIN tasks t ON t.id = l.task_id
     WHERE l.task_id = of_task AND l.token = with_token FOR SHARE OF l;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    texts := ARRAY(SELECT i.text FROM inbox i
                    WHERE i.conversation_id = mine.conversation AND i.state = 'delivered' AND i.message_seq = as_seq
                      AND i.task_id = of_task AND i.attempt = mine.attempt ORDER BY i.id);
    compact := EXISTS (SELECT 1 FROM conversations c WHERE c.id = mine.conversation AND c.compact_asked_at IS NOT NULL);
    IF texts = '{}' AND EXISTS (SELECT 1 FROM inbox i WHERE i.conversation_id = mine.conversation
                                                        AND i.state IN ('waiting', 'held')) THEN
        chosen := lock_messages(mine.conversation);
        texts := ARRAY(SELECT i.text FROM inbox i WHERE i.id = ANY (chosen) ORDER BY i.id);
    END IF;
    IF chosen <> '{}' THEN
        IF as_seq <> (SELECT coalesce(max(m.seq), 0) + 1 FROM messages m WHERE m.conversation_id = mine.conversation) THEN
            RAISE EXCEPTION 'message % is not the next one of conversation %', as_seq, mine.conversation
                USING ERRCODE = 'data_exception';
        END IF;
        UPDATE inbox i SET state = 'delivered', task_id = of_task, attempt = mine.attempt,
               delivered_at = clock_timestamp(), message_seq = as_seq
         WHERE i.id = ANY (chosen);
        INSERT INTO messages (conversation_id, seq, ord, task_id, attempt, step, role, parts)
        VALUES (mine.conversation, as_seq, as_seq, of_task, mine.attempt, in_step, 'user',
                jsonb_build_array(jsonb_build_object('type', 'text', 'text', array_to_string(texts, E'\n\n'))));
    END IF;
    IF compact THEN
        UPDATE conversations c SET compact_asked_at = NULL, compact_asked_by = NULL WHERE c.id = mine.conversation;
    END IF;
    RETURN NEXT;
END $$;

-- For the attempt that holds the lease and begins anew: the model must not believe to have done what
-- the earlier attempts of the task did, for their work is lost. What people sent meanwhile waits again, and
-- what a lost summary stood for is there again. False: the lease is gone.
CREATE FUNCTION lose_work(of_task bigint, with_token bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    mine record;
BEGIN
    SELECT l.attempt, coalesce(t.conversation_id, t.id) AS conversation INTO mine
      FROM leases l JOIN tasks t ON t.id = l.task_id
     WHERE l.task_id = of_task AND l.token = with_token FOR SHARE OF l;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE messages m SET lost_at = clock_timestamp()
     WHERE m.conversation_id = mine.conversation AND m.task_id = of_task AND m.attempt < mine.attempt
       AND m.lost_at IS NULL;
    UPDATE messages m SET replaced_by = NULL
      FROM messages s
     WHERE m.conversation_id = mine.conversation AND m.lost_at IS NULL
       AND s.conversation_id = m.conversation_id AND s.seq = m.replaced_by AND s.lost_at IS NOT NULL;
    UPDATE inbox i SET state = 'waiting', attempt = NULL, delivered_at = NULL, message_seq = NULL
     WHERE i.conversation_id = mine.conversation AND i.task_id = of_task AND i.state = 'delivered'
       AND i.attempt < mine.attempt;
    DELETE FROM carried_work w WHERE w.task_id = of_task;
    RETURN true;
END $$;

-- A task ends although nothing keeps what its attempts did: its last one died, or it waited to go on. What
-- follows in the conversation begins without that work, and must not believe in it.
CREATE FUNCTION end_without_work(of_task bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM outcomes o WHERE o.task_id = of_task;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE messages m SET lost_at = clock_timestamp()
     WHERE m.conversation_id = (SELECT coalesce(t.conversation_id, t.id) FROM tasks t WHERE t.id = of_task)
       AND m.task_id = of_task AND m.lost_at IS NULL;
    IF FOUND THEN
        UPDATE messages m SET replaced_by = NULL
          FROM messages s
         WHERE s.task_id = of_task AND s.lost_at IS NOT NULL AND m.conversation_id = s.conversation_id
           AND m.replaced_by = s.seq AND m.lost_at IS NULL;
        UPDATE inbox i SET state = 'waiting', attempt = NULL, delivered_at = NULL, message_seq = NULL
         WHERE i.task_id = of_task AND i.state = 'delivered';
    END IF;
    DELETE FROM carried_work w WHERE w.task_id = of_task;
END $$;

-- What the attempts of a task used. Unknown as soon as it is of one that had its agent started: a sum that
-- misses a part is no sum. Costs in two currencies have none either.
CREATE OR REPLACE FUNCTION spent(of_task bigint, OUT tokens bigint, OUT cost numeric) LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN count(u.total_tokens) = count(*) THEN sum(u.total_tokens)::bigint END,
           CASE WHEN count(u.cost) = count(*) AND count(DISTINCT u.currency) <= 1 THEN sum(u.cost) END
      FROM (SELECT x.total_tokens, x.cost, x.currency FROM usage_reports x WHERE x.task_id = of_task
            UNION ALL
            SELECT NULL, NULL, NULL FROM attempts a
             WHERE a.task_id = of_task AND a.launched_at IS NOT NULL AND a.ended_at IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM usage_reports x
                                WHERE x.task_id = a.task_id AND x.attempt = a.attempt)) u
$$;

-- ---------------------------------------------------------------- functions that know of it now

-- Put fresh tasks where they belong. Runs once per INSERT statement, whatever its size.
CREATE OR REPLACE FUNCTION admit_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    odd record;
BEGIN
    -- One look at the fresh rows and at who waits. A rule that is broken gives its words and, after a
    -- line end, how to mend it; a comparison with null is not true: what is not given breaks no rule.
    SELECT min(f.project) FILTER (WHERE p.name IS NULL)                         AS unknown_project,
           min(CASE
               WHEN octet_length(f.input) > 1048576 THEN
                   format('the input of a task has %s bytes; 1048576 are allowed', octet_length(f.input))
                   || E'\nPut long material into a file of the repository and name the file in the input.'
               WHEN f.input !~ '\S' THEN
                   E'the input of a task is empty\nSay in tasks.input what the agent shall do.'
               WHEN f.priority NOT BETWEEN 0 AND 9 THEN
                   format(E'priority %s is not 0 to 9\n9 runs first, 0 last; the default is 5.', f.priority)
               WHEN f.max_attempts NOT BETWEEN 1 AND 100 THEN
                   format(E'max_attempts %s is not 1 to 100\nThe default is 3; 1 means: never again.', f.max_attempts)
               WHEN f.run_at NOT BETWEEN '2000-01-01Z' AND '2200-01-01Z' THEN
                   format(E'run_at %s is no real date\nGive a time between the years 2000 and 2200, or none to run at once.', f.run_at)
               WHEN f.deadline NOT BETWEEN '2000-01-01Z' AND '2200-01-01Z' THEN
                   format(E'deadline %s is no real date\nGive a time between the years 2000 and 2200, or none.', f.deadline)
               WHEN least(f.timeout, f.idle_timeout) <= interval '0' THEN
                   E'timeout and idle_timeout must be more than nothing\nLeave them out for the agent''s own.'
               WHEN least(f.max_steps, f.max_tokens, f.max_cost) <= 0 OR f.max_cost > 1000000000000000 THEN
                   E'max_steps, max_tokens and max_cost must be more than nothing, and max_cost a real amount\nLeave out what shall have no limit.'
               WHEN octet_length(f.limit_key) NOT BETWEEN 1 AND 200 THEN
                   E'limit_key must have 1 to 200 bytes\nLeave it out for no limit of its own.'
               WHEN octet_length(f.idempotency_key) NOT BETWEEN 1 AND 200 THEN
                   E'idempotency_key must have 1 to 200 bytes\nUse a hash of what makes the request one of its kind.'
               WHEN greatest(octet_length(f.agent), octet_length(f.model), octet_length(f.mode_id),
                             octet_length(f.thinking_option_id), octet_length(f.fallback),
                             octet_length(f.submitted_by)) > 200 OR octet_length(f.base_ref) > 1024 THEN
                   'a name is too long: agent, model, mode_id, thinking_option_id, fallback and submitted_by may have 200 bytes, base_ref 1024'
                   || E'\nSELECT name FROM available_agents lists the agents.'
               END)                                                             AS broken_rule,
           bool_or(f.run_at > now())                                            AS later,
           bool_or(f.conversation_id IS NOT NULL OR f.limit_key IS NOT NULL
                   OR p.max_running IS NOT NULL)                                AS gated,
           bool_or(c.name IS NULL)                                              AS strange_agent,
           bool_or(f.deadline IS NOT NULL)                                      AS timed,
           EXISTS (SELECT 1 FROM bells b WHERE b.armed_until > clock_timestamp()) AS awaited
      INTO odd
      FROM fresh f
      LEFT JOIN projects p ON p.name = f.project
      LEFT JOIN catalogue_agents c ON c.name = f.agent;

    IF odd.unknown_project IS NOT NULL THEN
        RAISE EXCEPTION 'unknown project "%"', odd.unknown_project
            USING ERRCODE = 'foreign_key_violation',
                  HINT = 'Add it: dispatch projects add NAME PATH, or INSERT INTO projects(name, path).';
    END IF;
    IF odd.broken_rule IS NOT NULL THEN
        RAISE EXCEPTION '%', split_part(odd.broken_rule, E'\n', 1)
            USING ERRCODE = 'check_violation', HINT = split_part(odd.broken_rule, E'\n', 2);
    END IF;

    IF odd.strange_agent AND EXISTS (SELECT 1 FROM catalogue_agents) THEN
        INSERT INTO outcomes (task_id, seq, attempt, state, error_class, error)
        SELECT f.id, 2, 0, 'failed', 'agent_unavailable',
               format('no catalogue knows the agent "%s"; known agents: %s', f.agent,
                      (SELECT string_agg(c.name, ', ' ORDER BY c.name) FROM catalogue_agents c))
          FROM fresh f
         WHERE NOT EXISTS (SELECT 1 FROM catalogue_agents c WHERE c.name = f.agent);
    END IF;

    IF odd.gated THEN
        PERFORM 1 FROM fresh f LEFT JOIN tasks t
            ON t.id = f.conversation_id AND t.project = f.project AND t.conversation_id IS NULL
          WHERE f.conversation_id IS NOT NULL AND t.id IS NULL;
        IF FOUND THEN
            RAISE EXCEPTION 'conversation_id does not name the first task of a conversation of the same project'
                USING ERRCODE = 'foreign_key_violation',
                      HINT = 'A conversation has the id of its first task; see task_status.conversation_id.';
        END IF;
        INSERT INTO limits (limit_key)
        SELECT DISTINCT f.limit_key FROM fresh f WHERE f.limit_key IS NOT NULL ORDER BY 1
        ON CONFLICT DO NOTHING;
    END IF;

    IF odd.timed THEN
        INSERT INTO deadlines (task_id, deadline)
        SELECT f.id, f.deadline FROM fresh f WHERE f.deadline IS NOT NULL;
    END IF;

    IF odd.later OR odd.gated OR odd.strange_agent THEN
        INSERT INTO later_tasks (run_at, task_id, reason)
        SELECT f.run_at, f.id, 'scheduled' FROM fresh f
         WHERE f.run_at > now() AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = f.id);
        INSERT INTO parked_tasks (task_id, priority, limit_key, conversation_id)
        SELECT f.id, f.priority, coalesce(f.limit_key, project_limit(f.project)), f.conversation_id
          FROM fresh f
         WHERE f.run_at <= now()
           AND (f.conversation_id IS NOT NULL OR coalesce(f.limit_key, project_limit(f.project)) IS NOT NULL)
           AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = f.id);
        INSERT INTO ready_tasks (run_at, task_id, priority, agent, other)
        SELECT f.run_at, f.id, f.priority, f.agent, f.fallback FROM fresh f
         WHERE f.run_at <= now()
           AND f.conversation_id IS NULL AND coalesce(f.limit_key, project_limit(f.project)) IS NULL
           AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = f.id);
        IF odd.awaited THEN
            PERFORM pg_notify(dispatch_channel(), 'later');
        END IF;
    ELSE
        INSERT INTO ready_tasks (run_at, task_id, priority, agent, other)
        SELECT f.run_at, f.id, f.priority, f.agent, f.fallback FROM fresh f;
    END IF;

    IF odd.awaited THEN
        PERFORM pg_notify(dispatch_channel(), 'ready');
    END IF;
    RETURN NULL;
END $$;

-- Complete attempts that left nothing to store (tasks, tokens in ascending order, numbers of the
-- terminal events). A row that has a cancel request, or another token, is left alone and not
-- returned. width_bucket is a binary search: = ANY and array_position walk the whole list for each row.
CREATE OR REPLACE FUNCTION finish_plain(finished bigint[], tokens bigint[], seqs bigint[])
RETURNS TABLE (task_id bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH gone AS (
        DELETE FROM leases
         WHERE task_id = ANY (finished) AND cancel_requested_at IS NULL
           AND tokens[width_bucket(token, tokens)] = token
           AND finished[width_bucket(token, tokens)] = task_id
        RETURNING task_id, token, attempt, started_at
    )
    INSERT INTO outcomes (task_id, token, started_at, seq, attempt, state)
    SELECT g.task_id, g.token, g.started_at, seqs[width_bucket(g.token, tokens)], g.attempt, 'completed'
      FROM gone g
    RETURNING task_id;
    -- Whoever sent a message to one of them held its lease until it was sent: it is seen here.
    IF EXISTS (SELECT 1 FROM inbox i WHERE i.state IN ('waiting', 'held')) THEN
        PERFORM settle_messages(t.id)
           FROM tasks t
          WHERE t.id = ANY (finished)
            AND coalesce(t.conversation_id, t.id) IN (SELECT i.conversation_id FROM inbox i
                                                       WHERE i.state IN ('waiting', 'held'));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION cancel_task_as(wanted bigint, reason text DEFAULT NULL, actor text DEFAULT session_user)
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
            PERFORM end_without_work(wanted);
            PERFORM settle_messages(wanted);
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

-- End waiting tasks whose deadline has passed. One that runs keeps its row: its attempt has the
-- deadline as its timeout, and the task may come back to wait.
CREATE OR REPLACE FUNCTION end_overdue(most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    late record;
    tries smallint;
    ended integer := 0;
BEGIN
    FOR late IN
        SELECT d.task_id, s.waiting_reason, s.id IS NOT NULL AND s.ended_at IS NULL AS is_open
          FROM deadlines d LEFT JOIN task_status s ON s.id = d.task_id
         WHERE d.deadline <= now() AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.task_id = d.task_id)
         ORDER BY d.deadline LIMIT most FOR UPDATE OF d SKIP LOCKED
    LOOP
        tries := take_waiting(late.task_id) - 1;
        IF tries IS NOT NULL THEN
            INSERT INTO outcomes (task_id, seq, attempt, state, error_class, error, cost_tokens, cost)
            SELECT late.task_id, next_seq(late.task_id), tries, 'failed', 'timeout',
                   format('the task''s deadline passed while it waited (%s): submit it again with a later tasks.deadline',
                          late.waiting_reason),
                   s.tokens, s.cost
              FROM spent(late.task_id) s;
            PERFORM end_without_work(late.task_id);
            PERFORM settle_messages(late.task_id);
            PERFORM pg_notify(dispatch_channel(), 'events ' || late.task_id);
            ended := ended + 1;
        ELSIF late.is_open THEN
            CONTINUE; -- It moved meanwhile: the next look finds out where to.
        END IF;
        DELETE FROM deadlines WHERE task_id = late.task_id;
    END LOOP;
    RETURN ended;
END $$;

-- Keep the change, and send a follow-up task into the same conversation on top of it.
CREATE OR REPLACE FUNCTION request_changes_as(wanted bigint, comment text, actor text DEFAULT session_user)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    c pending_changes%ROWTYPE;
    next_task bigint;
BEGIN
    c := lock_change(wanted);
    PERFORM refuse_state(c, 'pending', 'conflicted');
    IF c.follow_up_task_id IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = c.follow_up_task_id) THEN
        RAISE EXCEPTION 'task % is already working on change %', c.follow_up_task_id, wanted
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Wait for it, or cancel it first.';
    END IF;
    next_task := follow_up(c.task_id, comment, actor);
    UPDATE pending_changes SET follow_up_task_id = next_task WHERE id = wanted;
    INSERT INTO reviews (change_id, actor, verdict, digest, comment)
    VALUES (wanted, actor, 'changes_requested', c.digest, comment);
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (actor, 'change.request_changes', 'change ' || wanted, jsonb_build_object('follow_up', next_task));
    PERFORM change_event(c.task_id, c.attempt, 'changes_requested',
                         jsonb_build_object('change_id', wanted, 'by', actor, 'follow_up_task_id', next_task));
    RETURN next_task;
END $$;

-- Refuse a reviewer whose words the agent followed on the way to this change: who submitted its task,
-- an earlier one of its conversation, or one that ran before the change was made, or sent it a message. A task that is
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
    SELECT i.id INTO own
      FROM inbox i, (SELECT coalesce(x.conversation_id, x.id) AS id FROM tasks x WHERE x.id = c.task_id) first
     WHERE i.conversation_id = first.id AND person(i.sent_by) = person(reviewer)
       AND ((i.state = 'delivered' AND i.delivered_at <= c.created_at)
            OR (i.state = 'carried'
                AND (i.task_id <= c.task_id
                     OR EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = i.task_id AND a.started_at <= c.created_at))))
     ORDER BY i.id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'change % needs a second pair of eyes: % sent message %, which led to it', c.id, reviewer, own
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Let somebody approve it who submitted no task of its conversation and sent it no message.';
    END IF;
END $$;

-- Where every task stands. A task in none of the other tables is ready; one that nobody can take says why.
CREATE OR REPLACE VIEW task_status AS
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
                           ELSE left('no live worker offers agent ' || t.agent || coalesce(
                                (SELECT ': ' || a.error FROM agent_offers a
                                  WHERE a.name = t.agent AND a.expires_at > now() AND a.error IS NOT NULL
                                  ORDER BY a.probed_at DESC LIMIT 1), ''), 300) END
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

-- ---------------------------------------------------------------- rights

INSERT INTO rights (role, object, privileges, seen) VALUES
    ('submitter', 'messages', 'SELECT', 'EXISTS (SELECT 1 FROM tasks t WHERE t.id = task_id)'),
    ('submitter', 'steps', 'SELECT', 'EXISTS (SELECT 1 FROM tasks t WHERE t.id = task_id)'),
    ('submitter', 'inbox', 'SELECT', 'sent_by = session_user OR EXISTS (SELECT 1 FROM tasks t WHERE t.id = inbox.conversation_id)');
INSERT INTO rights (role, object, privileges)
SELECT 'reviewer', o, 'SELECT' FROM unnest(ARRAY['messages', 'steps', 'inbox', 'provider_pauses']) o;
INSERT INTO rights (role, object, privileges) VALUES
    ('worker', 'messages', 'SELECT, INSERT, UPDATE (replaced_by)'),
    ('worker', 'steps', 'SELECT, INSERT'),
    ('worker', 'inbox', 'SELECT'),
    ('worker', 'carried_work', 'SELECT, INSERT, UPDATE, DELETE'),
    ('worker', 'provider_pauses', 'SELECT, INSERT, UPDATE');
INSERT INTO rights (role, kind, object, privileges)
SELECT r, 'FUNCTION', f, 'EXECUTE'
  FROM (VALUES ('submitter', ARRAY['send_message', 'cancel_message', 'compact_conversation']),
               ('reviewer', ARRAY['send_message', 'cancel_message', 'compact_conversation']),
               ('worker', ARRAY['settle_messages', 'take_messages', 'lose_work', 'end_without_work'])) x (r, fs), unnest(fs) f;

-- ---------------------------------------------------------------- names mean what they mean here

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('admit_tasks', 'cancel_message', 'cancel_task_as', 'compact_conversation',
                                  'conversation_of', 'end_overdue', 'end_without_work', 'finish_plain', 'follow_up', 'hold_open_task',
                                  'lock_messages', 'lose_work', 'refuse_conversation_of_others', 'refuse_own_work',
                                  'request_changes_as', 'resume_provider', 'send_message', 'settle_messages',
                                  'spent', 'take_messages')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    END LOOP;
    -- What runs as the owner is nobody's by default.
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('admit_tasks', 'cancel_message', 'compact_conversation', 'end_without_work', 'lose_work',
                                  'resume_provider', 'send_message', 'settle_messages', 'take_messages')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', f);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    -- Workers that run on end their tasks with it at once.
    IF EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = 'dispatch_worker'
                AND has_table_privilege(r.oid, 'leases', 'DELETE')) THEN
        GRANT SELECT ON inbox TO dispatch_worker;
        GRANT EXECUTE ON FUNCTION settle_messages(bigint) TO dispatch_worker;
    END IF;
END $$;
