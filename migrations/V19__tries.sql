-- Workers try their agents when somebody asks: the host that is asked may have none.

ALTER TABLE workers ADD COLUMN tries_agents boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN workers.tries_agents IS 'Whether it answers probe_agent() and check_agent(); a worker of the release before does not.';
ALTER TABLE lookups ADD COLUMN left_at timestamptz;
COMMENT ON COLUMN lookups.left_at IS 'When the last one who waited for the answer gave up; whoever asks the same next gets it.';

-- Ask the worker that this is about; whoever asks while it is looked at hears the same answer.
CREATE FUNCTION ask_about_agent(question jsonb, wanted uuid, actor text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    agent text := question ->> 'agent';
    target workers%ROWTYPE;
    asked bigint;
BEGIN
    IF agent IS NULL OR NOT EXISTS (SELECT FROM catalogue_agents c WHERE c.name = agent) THEN
        RAISE EXCEPTION 'no agent is called %', coalesce('"' || agent || '"', 'null')
            USING ERRCODE = 'no_data_found', HINT = 'dispatch agents list shows those of the fleet.';
    END IF;
    IF wanted IS NOT NULL AND NOT EXISTS (SELECT FROM workers w WHERE w.id = wanted) THEN
        RAISE EXCEPTION 'there is no worker %', wanted
            USING ERRCODE = 'no_data_found', HINT = 'dispatch workers list has their ids.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.lookups ' || agent, 0));
    IF wanted IS NOT NULL THEN
        question := question || jsonb_build_object('worker', wanted);
    END IF;
    -- An answer that nobody waited for to its end, or one to come.
    SELECT l.id INTO asked FROM lookups l LEFT JOIN workers w ON w.id = l.worker_id
     WHERE l.question = ask_about_agent.question
       AND (l.answered_at > now() - interval '10 minutes' AND l.left_at IS NOT NULL
            OR l.answered_at IS NULL AND l.asked_at > now() - interval '1 hour'
               AND w.last_seen > now() - interval '20 seconds')
     ORDER BY l.id DESC LIMIT 1;
    IF FOUND THEN
        UPDATE lookups l SET left_at = NULL WHERE l.id = asked AND l.left_at IS NOT NULL;
        RETURN asked;
    END IF;
    -- One where it is ready tells more than one where it is not installed; one that stops does not finish.
    SELECT w.* INTO target
      FROM workers w JOIN agent_offers o ON o.worker_id = w.id AND o.name = agent
     WHERE w.tries_agents AND w.last_seen > now() - interval '20 seconds'
       AND (w.id = wanted OR wanted IS NULL AND NOT w.draining)
     ORDER BY o.status = 'ready' DESC, o.status = 'unavailable', w.last_seen DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no live worker% has an agent "%"',
                        coalesce(' ' || (SELECT w.name FROM workers w WHERE w.id = wanted), ''), agent
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('dispatch agents show %s tells which workers have it. On a host with an agents.toml of its own: dispatch agents %s %s --here',
                                agent, question ->> 'kind', agent);
    END IF;
    DELETE FROM lookups l WHERE l.asked_at < now() - interval '1 hour';
    IF (SELECT count(*) FROM lookups l WHERE l.answered_at IS NULL AND l.question ? 'agent') >= 100 THEN
        RAISE EXCEPTION 'too many agents are being tried' USING ERRCODE = 'configuration_limit_exceeded',
            HINT = 'Ask again when some are done: SELECT * FROM lookups WHERE answered_at IS NULL';
    END IF;
    INSERT INTO lookups (question, worker_id, asked_by)
    VALUES (question, target.id, acting_as(actor)) RETURNING lookups.id INTO asked;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (acting_as(actor), 'agent.' || (question ->> 'kind'), 'agent ' || agent,
            jsonb_build_object('worker', target.name, 'lookup', asked));
    PERFORM pg_notify(dispatch_channel(), 'lookup');
    RETURN asked;
END $$;
COMMENT ON FUNCTION ask_about_agent IS 'For probe_agent() and check_agent().';

-- Let a worker start an agent to see whether it works and what it offers. Gives the number of the question.
CREATE FUNCTION probe_agent(agent text, worker uuid DEFAULT NULL, actor text DEFAULT session_user)
RETURNS bigint LANGUAGE sql AS $$
    SELECT ask_about_agent(jsonb_build_object('kind', 'probe', 'agent', agent), worker, actor)
$$;
COMMENT ON FUNCTION probe_agent IS 'The answer: SELECT answer FROM lookups WHERE id = …. Without a worker: one where it is ready, when there is one.';

-- Let a worker run an agent through small tasks of its own. Gives the number of the question.
CREATE FUNCTION check_agent(agent text, without_prompt boolean DEFAULT false, worker uuid DEFAULT NULL,
                            actor text DEFAULT session_user)
RETURNS bigint LANGUAGE sql AS $$
    SELECT ask_about_agent(jsonb_build_object('kind', 'check', 'agent', agent,
                                              'without_prompt', coalesce(without_prompt, false)), worker, actor)
$$;
COMMENT ON FUNCTION check_agent IS 'Its prompts cost a few thousand tokens. The answer: SELECT answer FROM lookups WHERE id = …, after some seconds to some minutes.';

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('ask_about_agent', 'probe_agent', 'check_agent')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
