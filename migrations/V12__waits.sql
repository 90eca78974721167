-- A task that waits and is ended there keeps what it had done, and one that goes on what it had used.

ALTER TABLE steps ADD COLUMN estimated_tokens bigint, ADD COLUMN estimated_cost numeric;
COMMENT ON COLUMN steps.estimated_tokens IS 'What budgets take the request for where the provider did not say what it used; never part of a sum that anybody is told.';

ALTER TABLE carried_work ADD COLUMN change jsonb;
COMMENT ON COLUMN carried_work.change IS 'The pending change that the task ends with if no further attempt begins: its row, and its files under "rows".';

-- For the attempt that holds the lease, inside the transaction that ends it: put a change that was just
-- stored beside the work it is of. Nobody has seen it.
CREATE FUNCTION carry_change(wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE carried_work w
       SET change = to_jsonb(c) || jsonb_build_object('rows', coalesce(
               (SELECT jsonb_agg(to_jsonb(f) ORDER BY f.n) FROM pending_change_files f WHERE f.change_id = c.id), '[]'))
      FROM pending_changes c
     WHERE c.id = wanted AND w.task_id = c.task_id AND w.attempt = c.attempt AND c.created_at = now();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'change % is not of work that goes on', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    DELETE FROM pending_changes c WHERE c.id = wanted;
END $$;

-- A task ends, and the last one who held it left nothing: it waited to go on, its worker died, or another
-- agent had it. What an earlier attempt left for the next one is its partial change, and what was said up
-- to there is true. The rest is lost: what follows in the conversation must not believe in it.
CREATE OR REPLACE FUNCTION end_without_work(of_task bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    o outcomes%ROWTYPE;
    w carried_work%ROWTYPE;
    c pending_changes%ROWTYPE;
    true_until smallint := 0;
BEGIN
    SELECT * INTO o FROM outcomes x WHERE x.task_id = of_task;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM carried_work x WHERE x.task_id = of_task RETURNING * INTO w;
    -- A worker of the version before keeps work and leaves the change of an earlier attempt beside it.
    IF w.change ->> 'attempt' <> w.attempt::text THEN
        w.change := NULL;
    END IF;
    -- Another agent's work takes its place.
    IF w.task_id IS NOT NULL AND o.state <> 'completed' AND NOT EXISTS (
        SELECT 1 FROM pending_changes p WHERE p.task_id = of_task AND p.state IN ('pending', 'approved', 'conflicted'))
    THEN
        IF w.change IS NOT NULL THEN
            c := jsonb_populate_record(NULL::pending_changes, w.change);
            INSERT INTO pending_changes (task_id, attempt, token, project, partial, base_commit, result_tree,
                                         result_commit, result_ref, digest, files, added_lines, removed_lines,
                                         notices, flags)
            VALUES (c.task_id, c.attempt, c.token, c.project, true, c.base_commit, c.result_tree, c.result_commit,
                    c.result_ref, c.digest, c.files, c.added_lines, c.removed_lines, c.notices, c.flags)
            RETURNING id INTO c.id;
            INSERT INTO pending_change_files
            SELECT f.* FROM jsonb_array_elements(w.change -> 'rows') AS r (row),
                 LATERAL jsonb_populate_record(NULL::pending_change_files,
                                               r.row || jsonb_build_object('change_id', c.id)) AS f;
            IF w.pack IS NOT NULL THEN
                INSERT INTO change_packs (change_id, bytes, pack) VALUES (c.id, octet_length(w.pack), w.pack);
            END IF;
            -- Before the terminal event, which nobody has read yet: the outcome is of this transaction.
            UPDATE outcomes x SET seq = x.seq + 1 WHERE x.task_id = of_task;
            INSERT INTO events (task_id, seq, attempt, kind, payload)
            VALUES (of_task, o.seq, o.attempt, 'change_ready', jsonb_build_object(
                    'change_id', c.id, 'files', c.files, 'added_lines', c.added_lines,
                    'removed_lines', c.removed_lines, 'partial', true, 'digest', c.digest, 'flags', c.flags));
        END IF;
        -- Work that changed something and is not at hand is as lost as any other.
        IF w.change IS NOT NULL OR NOT w.changed THEN
            true_until := w.attempt;
        END IF;
    END IF;
    UPDATE messages m SET lost_at = clock_timestamp()
     WHERE m.conversation_id = (SELECT coalesce(t.conversation_id, t.id) FROM tasks t WHERE t.id = of_task)
       AND m.task_id = of_task AND m.attempt > true_until AND m.lost_at IS NULL;
    IF FOUND THEN
        UPDATE messages m SET replaced_by = NULL
          FROM messages s
         WHERE s.task_id = of_task AND s.lost_at IS NOT NULL AND m.conversation_id = s.conversation_id
           AND m.replaced_by = s.seq AND m.lost_at IS NULL;
        UPDATE inbox i SET state = 'waiting', attempt = NULL, delivered_at = NULL, message_seq = NULL
         WHERE i.task_id = of_task AND i.state = 'delivered' AND i.attempt > true_until;
    END IF;
END $$;

-- A task without an agent takes the one of its conversation, and with it its model; else the default.
CREATE OR REPLACE FUNCTION fill_agent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before record;
BEGIN
    IF NEW.conversation_id IS NOT NULL THEN
        SELECT t.agent, t.model INTO before FROM tasks t
         WHERE t.id = NEW.conversation_id OR t.conversation_id = NEW.conversation_id
         ORDER BY t.id DESC LIMIT 1;
        IF FOUND THEN
            NEW.agent := before.agent;
            NEW.model := coalesce(NEW.model, before.model);
            RETURN NEW;
        END IF;
    END IF;
    NEW.agent := coalesce(
        (SELECT p.default_agent FROM projects p WHERE p.name = NEW.project),
        (SELECT s.value FROM settings s WHERE s.name = 'default_agent'));
    IF NEW.agent IS NULL THEN
        RAISE EXCEPTION 'the task names no agent and no default agent is set'
            USING ERRCODE = 'not_null_violation',
                  HINT = 'Name one (INSERT INTO tasks(project, input, agent) …; SELECT name FROM available_agents lists them) or set default_agent in agents.toml.';
    END IF;
    RETURN NEW;
END $$;

INSERT INTO rights (role, kind, object, privileges) VALUES ('worker', 'FUNCTION', 'carry_change', 'EXECUTE');

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('carry_change', 'end_without_work')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    EXECUTE format('ALTER FUNCTION fill_agent() SET search_path = %I, pg_temp', current_schema());
END $$;
