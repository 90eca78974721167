-- Moves between waiting states that no claim makes: due tasks become ready, parked ones come out
-- when there is room, one whose deadline has passed ends, and a task goes to its fallback agent when
-- nobody offers the one it asked for.
-- Any worker may run it at any time; it is harmless to run twice at once.

-- Whether a task may run now as far as its conversation goes: nothing of it runs or is about to,
-- and nothing earlier is unfinished.
CREATE FUNCTION conversation_free(conversation bigint, me bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (
        SELECT 1 FROM tasks e
         WHERE (e.id = conversation OR e.conversation_id = conversation) AND e.id <> me
           AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = e.id)
           AND (e.id < me
                OR (NOT EXISTS (SELECT 1 FROM parked_tasks p WHERE p.task_id = e.id)
                    AND NOT EXISTS (SELECT 1 FROM later_tasks w WHERE w.task_id = e.id))))
$$;

CREATE FUNCTION promote_later(most integer) RETURNS integer LANGUAGE sql VOLATILE AS $$
    WITH due AS (
        DELETE FROM later_tasks
         WHERE task_id = ANY (ARRAY(SELECT l.task_id FROM later_tasks l WHERE l.run_at <= now()
                                     ORDER BY l.run_at LIMIT most FOR UPDATE SKIP LOCKED))
        RETURNING task_id, attempt, uncharged
    ), facts AS (
        SELECT d.task_id, d.attempt, d.uncharged, t.priority, t.agent, t.fallback, t.run_at,
               coalesce(t.limit_key, project_limit(t.project)) AS limit_key,
               coalesce(t.conversation_id,
                        (SELECT f.conversation_id FROM tasks f WHERE f.conversation_id = t.id LIMIT 1)) AS conversation_id
          FROM due d CROSS JOIN LATERAL
               (SELECT x.id, x.priority, x.agent, x.fallback, x.run_at, x.limit_key, x.project, x.conversation_id
                  FROM tasks x WHERE x.id = d.task_id LIMIT 1) t
    ), parked AS (
        INSERT INTO parked_tasks (task_id, priority, attempt, uncharged, limit_key, conversation_id)
        SELECT f.task_id, f.priority, f.attempt, f.uncharged, f.limit_key, f.conversation_id
          FROM facts f WHERE f.limit_key IS NOT NULL OR f.conversation_id IS NOT NULL
        RETURNING 1
    ), ready AS (
        INSERT INTO ready_tasks (run_at, task_id, priority, attempt, uncharged, agent, other)
        SELECT f.run_at, f.task_id, f.priority, f.attempt, f.uncharged, f.agent, f.fallback
          FROM facts f WHERE f.limit_key IS NULL AND f.conversation_id IS NULL
        RETURNING 1
    )
    SELECT ((SELECT count(*) FROM parked) + (SELECT count(*) FROM ready))::integer
$$;

-- The keys that tasks are parked under: from one to the next in the index, however many tasks each has.
CREATE FUNCTION parked_keys() RETURNS TABLE (limit_key text) LANGUAGE sql STABLE AS $$
    WITH RECURSIVE keys AS (
        SELECT (SELECT min(p.limit_key) FROM parked_tasks p) AS limit_key
        UNION ALL
        SELECT (SELECT min(p.limit_key) FROM parked_tasks p WHERE p.limit_key > k.limit_key)
          FROM keys k WHERE k.limit_key IS NOT NULL
    )
    SELECT k.limit_key FROM keys k WHERE k.limit_key IS NOT NULL
$$;

-- A limit whose row somebody deleted must strand nobody: it is the project's own, or the default.
CREATE FUNCTION limit_of(key text) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT l.max_running FROM limits l WHERE l.limit_key = key),
                    (SELECT coalesce(p.max_running, 2147483647) FROM projects p
                      WHERE key LIKE 'project:%' AND p.name = substr(key, 9)),
                    1)
$$;

-- Let parked tasks out: under a limit as many as there is room for, highest priority first.
-- Room is counted, not kept, so that no crash can leak a slot. One at a time in the fleet, and each
-- judgement by a statement that begins after the lock is held: two that cannot see each other's
-- work would let out two tasks of one conversation, or too many under one key. NULL: somebody else
-- is at it, and may have judged before what the caller knows of was committed, so look again soon.
CREATE FUNCTION promote_parked(most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    key record;
    moved integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('dispatch promote ' || current_schema())) THEN
        RETURN NULL;
    END IF;
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

-- Whether a parked task may run now as far as its conversation goes: only the first of it can be
-- free, and that is the cheap question.
CREATE FUNCTION may_go(conversation bigint, me bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (SELECT 1 FROM parked_tasks q WHERE q.conversation_id = conversation AND q.task_id < me)
                THEN false
                ELSE conversation_free(conversation, me) END
$$;

CREATE FUNCTION let_out(key text, most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    chosen bigint[];
    moved integer;
BEGIN
    -- Two statements: an index finds a key, or none, but not whichever of the two it is.
    IF key IS NULL THEN
        chosen := ARRAY(SELECT p.task_id FROM parked_tasks p
                         WHERE p.limit_key IS NULL
                           AND (p.conversation_id IS NULL OR may_go(p.conversation_id, p.task_id))
                         ORDER BY p.priority DESC, p.task_id LIMIT most FOR UPDATE SKIP LOCKED);
    ELSE
        chosen := ARRAY(SELECT p.task_id FROM parked_tasks p
                         WHERE p.limit_key = key
                           AND (p.conversation_id IS NULL OR may_go(p.conversation_id, p.task_id))
                         ORDER BY p.priority DESC, p.task_id LIMIT most FOR UPDATE SKIP LOCKED);
    END IF;
    WITH out AS (
        DELETE FROM parked_tasks WHERE task_id = ANY (chosen)
        RETURNING task_id, attempt, uncharged, limit_key
    )
    INSERT INTO ready_tasks (run_at, task_id, priority, attempt, uncharged, agent, limit_key, other)
    SELECT t.run_at, o.task_id, t.priority, o.attempt, o.uncharged, t.agent, o.limit_key, t.fallback
      FROM out o CROSS JOIN LATERAL
           (SELECT x.run_at, x.priority, x.agent, x.fallback FROM tasks x WHERE x.id = o.task_id LIMIT 1) t;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END $$;

-- Deadlines of tasks that have one, until they are over and passed: looking for what is overdue
-- must not walk over history, and tasks without a deadline must not pay for it. admit_tasks() fills it.
CREATE TABLE deadlines (
    task_id  bigint PRIMARY KEY,
    deadline timestamptz NOT NULL
);
CREATE INDEX deadlines_due ON deadlines (deadline);

-- End waiting tasks whose deadline has passed. One that runs keeps its row: its attempt has the
-- deadline as its timeout, and the task may come back to wait.
CREATE FUNCTION end_overdue(most integer) RETURNS integer LANGUAGE plpgsql AS $$
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
            PERFORM pg_notify(dispatch_channel(), 'events ' || late.task_id);
            ended := ended + 1;
        ELSIF late.is_open THEN
            CONTINUE; -- It moved meanwhile: the next look finds out where to.
        END IF;
        DELETE FROM deadlines WHERE task_id = late.task_id;
    END LOOP;
    RETURN ended;
END $$;

CREATE FUNCTION is_offered(agent text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM agent_offers o
                    WHERE o.name = agent AND o.status = 'ready' AND o.expires_at > now())
$$;

-- A fallback is used only when the task or the agent's entry names one and no live worker offers
-- the agent itself; a task whose fallback went away too goes back to the agent it asked for. Rows
-- that cannot go anywhere are not walked: there may be a million of them.
CREATE FUNCTION fall_back(most integer) RETURNS integer LANGUAGE sql VOLATILE AS $$
    WITH offered AS MATERIALIZED (
        SELECT DISTINCT o.name FROM agent_offers o WHERE o.status = 'ready' AND o.expires_at > now()
    ), dark AS MATERIALIZED (
        SELECT c.name, (SELECT max(o.fallback) FROM agent_offers o
                         WHERE o.name = c.name AND o.fallback IN (SELECT f.name FROM offered f)) AS next
          FROM catalogue_agents c
         WHERE c.name NOT IN (SELECT f.name FROM offered f)
    ), chosen AS MATERIALIZED (
        SELECT r.at, f.name AS next
          FROM dark d CROSS JOIN offered f CROSS JOIN LATERAL (
               SELECT x.ctid AS at FROM ready_tasks x
                WHERE x.other = f.name AND x.agent = d.name
                LIMIT most FOR UPDATE OF x SKIP LOCKED) r
        UNION ALL
        SELECT r.at, d.next
          FROM dark d CROSS JOIN LATERAL (
               SELECT x.ctid AS at FROM ready_tasks x
                WHERE x.agent = d.name AND x.other IS NULL
                LIMIT most FOR UPDATE OF x SKIP LOCKED) r
         WHERE d.next IS NOT NULL
    ), gone AS (
        DELETE FROM ready_tasks WHERE ctid = ANY (ARRAY(SELECT c.at FROM chosen c))
        RETURNING ctid AS at, run_at, task_id, priority, attempt, uncharged, agent, limit_key
    ), back AS (
        INSERT INTO ready_tasks (run_at, task_id, priority, attempt, uncharged, agent, limit_key, other)
        SELECT g.run_at, g.task_id, g.priority, g.attempt, g.uncharged, c.next, g.limit_key, g.agent
          FROM gone g JOIN chosen c ON c.at = g.at
        RETURNING 1
    )
    SELECT count(*)::integer FROM back
$$;

-- Everything above; tells how many tasks became ready, moved towards it or ended, and how many
-- milliseconds until the next scheduled one or deadline is due (null: none).
-- Without JIT: what is compiled in half a second runs for a millisecond. Without whole scans: a plan
-- made while the tables are nearly empty is kept.
CREATE FUNCTION maintain(most integer) RETURNS TABLE (moved integer, next_due_ms bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    promoted integer := 0;
BEGIN
    moved := 0;
    -- First: the end of one task may let another one out.
    IF EXISTS (SELECT 1 FROM deadlines d WHERE d.deadline <= now()) THEN
        moved := moved + end_overdue(most);
    END IF;
    IF EXISTS (SELECT 1 FROM later_tasks l WHERE l.run_at <= now()) THEN
        moved := moved + promote_later(most);
    END IF;
    IF EXISTS (SELECT 1 FROM parked_tasks) THEN
        promoted := promote_parked(most);
        moved := moved + coalesce(promoted, 0);
    END IF;
    IF EXISTS (SELECT 1 FROM catalogue_agents c WHERE NOT is_offered(c.name)) THEN
        moved := moved + fall_back(most);
    END IF;
    IF moved > 0 THEN
        PERFORM ring_bell('moved');
    END IF;
    -- greatest() ignores NULL, and "nothing scheduled" is not "due now". A deadline that has passed
    -- is that of a running task: nothing to wait for.
    SELECT CASE WHEN due.at IS NOT NULL
                THEN greatest(0, (extract(epoch FROM due.at - clock_timestamp()) * 1000)::bigint) END
      INTO next_due_ms
      FROM (SELECT least((SELECT min(l.run_at) FROM later_tasks l),
                         (SELECT min(d.deadline) FROM deadlines d WHERE d.deadline > now())) AS at) due;
    IF promoted IS NULL THEN
        next_due_ms := 0;
    END IF;
    RETURN NEXT;
END $$;
