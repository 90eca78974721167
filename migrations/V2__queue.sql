-- Where a task stands. A task is in exactly one of ready_tasks, later_tasks, parked_tasks,
-- leases and outcomes; a transition is one statement that deletes from one and inserts into
-- the next. Rows of the hot tables are narrow and are never updated, save leases.

CREATE SEQUENCE lease_tokens;

CREATE TABLE workers (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    version    text NOT NULL,
    slots      integer NOT NULL,
    draining   boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL DEFAULT now(),
    last_seen  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE workers IS 'One row per worker process; a new id at each start. Leases live while their worker is seen.';

-- The doorbell. The insert trigger reads it and notifies only when somebody waits, so that a
-- busy fleet never pays for NOTIFY, which takes a lock at commit.
CREATE TABLE bells (
    worker_id   uuid PRIMARY KEY,
    armed_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What agents.toml files of the fleet name (catalogue) and what each worker offers now.
CREATE TABLE catalogue_agents (
    name      text PRIMARY KEY,
    listed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE agent_offers (
    worker_id        uuid NOT NULL,
    name             text NOT NULL,
    status           text NOT NULL CHECK (status IN ('ready', 'loading', 'error', 'unavailable')),
    error            text,
    execution_path   text NOT NULL,
    version          text,
    models           jsonb NOT NULL DEFAULT '[]',
    modes            jsonb NOT NULL DEFAULT '[]',
    thinking_options jsonb NOT NULL DEFAULT '[]',
    commands         jsonb NOT NULL DEFAULT '[]',
    capabilities     jsonb NOT NULL DEFAULT '{}',
    slots            integer NOT NULL DEFAULT 1,
    fallback         text,
    probed_at        timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    PRIMARY KEY (name, worker_id)
);
CREATE VIEW available_agents AS
    SELECT DISTINCT ON (o.name)
           o.name, CASE WHEN o.expires_at < now() THEN 'unavailable' ELSE o.status END AS status,
           o.error, o.execution_path, o.version, o.models, o.modes, o.thinking_options,
           o.commands, o.capabilities, o.probed_at, o.expires_at,
           count(*) FILTER (WHERE o.status = 'ready' AND o.expires_at >= now())
               OVER (PARTITION BY o.name) AS workers
    FROM agent_offers o
    ORDER BY o.name, (o.status = 'ready' AND o.expires_at >= now()) DESC, o.probed_at DESC;
COMMENT ON VIEW available_agents IS 'One row per agent: the freshest ready offer of any live worker.';

CREATE TABLE ready_tasks (
    run_at    timestamptz NOT NULL,
    task_id   bigint NOT NULL,
    priority  smallint NOT NULL,
    attempt   smallint NOT NULL DEFAULT 1,
    uncharged smallint NOT NULL DEFAULT 0,
    agent     text NOT NULL,
    limit_key text,
    other     text,
    PRIMARY KEY (agent, priority, run_at, task_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_scale_factor = 0,
        autovacuum_vacuum_insert_threshold = 5000, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 5000);
CREATE INDEX ready_tasks_limit ON ready_tasks (limit_key) WHERE limit_key IS NOT NULL;
CREATE INDEX ready_tasks_other ON ready_tasks (other, agent) WHERE other IS NOT NULL;
COMMENT ON COLUMN ready_tasks.other IS 'Where it may go when nobody offers its agent: the fallback, or, once there, the agent asked for.';

CREATE TABLE later_tasks (
    run_at    timestamptz NOT NULL,
    task_id   bigint NOT NULL PRIMARY KEY,
    attempt   smallint NOT NULL DEFAULT 1,
    uncharged smallint NOT NULL DEFAULT 0,
    reason    text NOT NULL
);
CREATE INDEX later_tasks_due ON later_tasks (run_at);

CREATE TABLE parked_tasks (
    task_id         bigint PRIMARY KEY,
    priority        smallint NOT NULL,
    attempt         smallint NOT NULL DEFAULT 1,
    uncharged       smallint NOT NULL DEFAULT 0,
    limit_key       text,
    conversation_id bigint,
    parked_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX parked_tasks_heads ON parked_tasks (limit_key, priority DESC, task_id);
CREATE INDEX parked_tasks_conversation ON parked_tasks (conversation_id, task_id)
    WHERE conversation_id IS NOT NULL;

CREATE TABLE limits (
    limit_key   text PRIMARY KEY,
    max_running integer NOT NULL DEFAULT 1 CONSTRAINT limit_is_not_negative CHECK (max_running >= 0)
);
COMMENT ON TABLE limits IS 'How many tasks with a key may run at a time; a key without a row: 1, or what its project says.';

CREATE TABLE leases (
    task_id             bigint PRIMARY KEY,
    token               bigint NOT NULL,
    worker_id           uuid NOT NULL,
    started_at          timestamptz NOT NULL DEFAULT now(),
    deadline_at         timestamptz,
    cancel_requested_at timestamptz,
    attempt             smallint NOT NULL,
    uncharged           smallint NOT NULL,
    agent               text NOT NULL,
    limit_key           text,
    phase               text,
    cancel_by           text,
    cancel_reason       text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX leases_cancel ON leases (worker_id) WHERE cancel_requested_at IS NOT NULL;
CREATE INDEX leases_limit ON leases (limit_key) WHERE limit_key IS NOT NULL;
COMMENT ON COLUMN leases.token IS 'Names one attempt for ever; each write of the attempt carries it.';

CREATE TABLE outcomes (
    task_id        bigint PRIMARY KEY,
    token          bigint,
    started_at     timestamptz,
    ended_at       timestamptz NOT NULL DEFAULT now(),
    seq            bigint NOT NULL,
    attempt        smallint NOT NULL,
    state          text NOT NULL CHECK (state IN ('completed', 'failed', 'cancelled')),
    error_class    text,
    error          text,
    output_summary text,
    cost_tokens    bigint,
    cost           numeric,
    cancel_by      text
);
CREATE INDEX outcomes_ended ON outcomes USING brin (ended_at);
COMMENT ON COLUMN outcomes.seq IS 'Number of the terminal event of the task''s stream; the event itself is this row.';

-- ---------------------------------------------------------------- functions

CREATE FUNCTION dispatch_channel() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT 'dispatch_' || current_schema() $$;

-- Tell the waiting workers that there are fresh tasks (ready), such as need a move first (later),
-- or ready ones that are older than what was claimed last (moved); nothing when nobody waits.
CREATE FUNCTION ring_bell(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM bells b WHERE b.armed_until > clock_timestamp()) THEN
        PERFORM pg_notify(dispatch_channel(), what);
    END IF;
END $$;

-- Put fresh tasks where they belong. Runs once per INSERT statement, whatever its size.
CREATE FUNCTION admit_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
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

-- The limit key that a project's own max_running stands for; null: the project has no limit.
CREATE FUNCTION project_limit(wanted text) RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT 'project:' || p.name FROM projects p WHERE p.name = wanted AND p.max_running IS NOT NULL $$;

-- A row whose task is gone would be claimed by nobody and held for ever.
CREATE FUNCTION refuse_delete_of_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = OLD.id) THEN
        RAISE EXCEPTION 'task % has not ended', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = 'End it first: SELECT cancel_task(id).';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER tasks_open_stay BEFORE DELETE ON tasks
    FOR EACH ROW EXECUTE FUNCTION refuse_delete_of_open();

CREATE TRIGGER tasks_admit AFTER INSERT ON tasks REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION admit_tasks();

CREATE FUNCTION keep_project_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.max_running IS NULL THEN
        -- Tasks already parked under the key must still come out: lift the limit, keep the row.
        UPDATE limits SET max_running = 2147483647 WHERE limit_key = 'project:' || NEW.name;
    ELSE
        INSERT INTO limits (limit_key, max_running) VALUES ('project:' || NEW.name, NEW.max_running)
        ON CONFLICT (limit_key) DO UPDATE SET max_running = EXCLUDED.max_running;
        IF TG_OP = 'UPDATE' AND OLD.max_running IS NULL THEN
            PERFORM put_under_limit(NEW.name, 'project:' || NEW.name);
        END IF;
    END IF;
    RETURN NULL;
END $$;

-- More room under a key is worth a look at once.
CREATE FUNCTION tell_of_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ring_bell('later');
    RETURN NULL;
END $$;
CREATE TRIGGER limits_tell AFTER UPDATE OF max_running OR DELETE ON limits
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_limit();

-- A limit that is new to a project holds for what waits already, and counts what runs. A task that
-- names a key of its own keeps it.
CREATE FUNCTION put_under_limit(of_project text, key text) RETURNS void LANGUAGE sql AS $$
    WITH back AS (
        DELETE FROM ready_tasks r USING tasks t
         WHERE t.id = r.task_id AND t.project = of_project AND r.limit_key IS NULL AND t.limit_key IS NULL
        RETURNING r.task_id, r.priority, r.attempt, r.uncharged, t.conversation_id
    )
    INSERT INTO parked_tasks (task_id, priority, attempt, uncharged, limit_key, conversation_id)
    SELECT b.task_id, b.priority, b.attempt, b.uncharged, key, b.conversation_id FROM back b;
    UPDATE parked_tasks k SET limit_key = key FROM tasks t
     WHERE t.id = k.task_id AND t.project = of_project AND k.limit_key IS NULL;
    UPDATE leases l SET limit_key = key FROM tasks t
     WHERE t.id = l.task_id AND t.project = of_project AND l.limit_key IS NULL;
$$;
CREATE TRIGGER projects_keep_limit AFTER INSERT OR UPDATE OF max_running ON projects
    FOR EACH ROW EXECUTE FUNCTION keep_project_limit();

-- ---------------------------------------------------------------- the two hot statements
-- As functions, for a function carries settings of its own, also behind a pooler: a plan that is
-- made while the tables are nearly empty and kept must be right for a hundred thousand rows too.

-- Take up to `most` ready tasks: per agent at most its free slots, highest priority first, then
-- oldest. `marks` holds a low-water mark per agent and priority level, so that the scan does not
-- walk over dead index entries; a sweep passes ones from long ago. LATERAL with a LIMIT inside keeps
-- it one index range per agent and level.
CREATE FUNCTION claim_tasks(worker uuid, agents text[], free integer[], marks timestamptz[], most integer)
RETURNS TABLE (
    task_id bigint, token bigint, attempt smallint, uncharged smallint, agent text, limit_key text,
    project text, input text, asked_agent text, model text, mode_id text, thinking_option_id text,
    conversation_id bigint, priority smallint, run_at timestamptz, max_attempts smallint,
    timeout_ms bigint, idle_timeout_ms bigint, base_ref text, submitted_by text, next_seq bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH picked AS MATERIALIZED (
        SELECT c.at
          FROM unnest(claim_tasks.agents, claim_tasks.free) WITH ORDINALITY AS w (agent, free, place)
          CROSS JOIN LATERAL (
              SELECT r.at
                FROM generate_series(9, 0, -1) AS level
                CROSS JOIN LATERAL (
                    SELECT x.ctid AS at
                      FROM ready_tasks x
                     WHERE x.agent = w.agent AND x.priority = level::smallint
                       AND x.run_at >= claim_tasks.marks[(w.place - 1) * 10 + level + 1]
                       AND x.run_at <= now()
                     ORDER BY x.run_at, x.task_id
                     LIMIT w.free FOR UPDATE SKIP LOCKED) AS r
               LIMIT w.free) AS c
         LIMIT most
    ), gone AS (
        DELETE FROM ready_tasks WHERE ctid = ANY (ARRAY(SELECT p.at FROM picked p))
        RETURNING task_id, attempt, uncharged, agent, limit_key, priority, run_at
    ), held AS (
        INSERT INTO leases (task_id, token, worker_id, attempt, uncharged, agent, limit_key)
        SELECT g.task_id, nextval('lease_tokens'), worker, g.attempt, g.uncharged, g.agent, g.limit_key
          FROM gone g
        RETURNING task_id, token, attempt, uncharged, agent, limit_key
    )
    SELECT h.task_id, h.token, h.attempt, h.uncharged, h.agent, h.limit_key,
           t.project, t.input, t.asked_agent, t.model, t.mode_id, t.thinking_option_id, t.conversation_id,
           t.priority, t.run_at, t.max_attempts, t.timeout_ms, t.idle_timeout_ms, t.base_ref, t.submitted_by,
           CASE WHEN h.attempt > 1 THEN next_seq(h.task_id) ELSE 2 END AS next_seq
      FROM held h
      CROSS JOIN LATERAL (
          SELECT x.project, x.input, x.agent AS asked_agent, x.model, x.mode_id, x.thinking_option_id,
                 x.conversation_id, x.priority, x.run_at, x.max_attempts, x.base_ref, x.submitted_by,
                 CASE WHEN x.timeout IS NULL AND x.deadline IS NULL THEN NULL ELSE
                      (extract(epoch FROM least(x.timeout, x.deadline - now())) * 1000)::bigint END AS timeout_ms,
                 (extract(epoch FROM x.idle_timeout) * 1000)::bigint AS idle_timeout_ms
            FROM tasks x WHERE x.id = h.task_id LIMIT 1) AS t;
END $$;

-- Complete attempts that left nothing to store (tasks, tokens in ascending order, numbers of the
-- terminal events). A row that has a cancel request, or another token, is left alone and not
-- returned. width_bucket is a binary search: = ANY and array_position walk the whole list for each row.
CREATE FUNCTION finish_plain(finished bigint[], tokens bigint[], seqs bigint[])
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
END $$;
