-- What only a worker can find out, since it has the repositories: somebody asks, a worker answers. And
-- workers that take no tasks for a while.

CREATE TABLE lookups (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    question    jsonb NOT NULL,
    worker_id   uuid,
    asked_by    text NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT now(),
    declined    uuid[] NOT NULL DEFAULT '{}',
    token       bigint,
    taken_until timestamptz,
    answered_at timestamptz,
    answered_by text,
    answer      jsonb
);
CREATE INDEX lookups_open ON lookups (id) WHERE answered_at IS NULL;
COMMENT ON TABLE lookups IS 'Questions to workers, kept for an hour: SELECT * FROM ask_workers(…), then read the answer here.';
COMMENT ON COLUMN lookups.worker_id IS 'Only this worker answers; null: whoever can.';
COMMENT ON COLUMN lookups.declined IS 'Workers that cannot; answer is the last one''s reason until somebody can.';

-- Ask any worker, or each live one. Gives the numbers of the questions.
CREATE FUNCTION ask_workers(question jsonb, everyone boolean DEFAULT false, actor text DEFAULT session_user)
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(question ->> 'kind', '') NOT IN ('preview', 'file', 'check_project')
       OR octet_length(question::text) > 65536 THEN
        RAISE EXCEPTION 'workers do not understand this question'
            USING ERRCODE = 'check_violation',
                  HINT = 'Its kind is preview, file or check_project: {"kind": "preview", "change": 7}.';
    END IF;
    DELETE FROM lookups l WHERE l.asked_at < now() - interval '1 hour';
    IF (SELECT count(*) FROM lookups l WHERE l.answered_at IS NULL AND l.asked_at > now() - interval '1 minute') >= 200 THEN
        RAISE EXCEPTION 'too many questions are open' USING ERRCODE = 'configuration_limit_exceeded',
            HINT = 'Ask again in a minute; dispatch workers list says who could answer.';
    END IF;
    RETURN QUERY
        INSERT INTO lookups (question, worker_id, asked_by)
        SELECT ask_workers.question, w.id, acting_as(ask_workers.actor)
          FROM (SELECT x.id FROM workers x WHERE everyone AND x.last_seen > now() - interval '15 seconds'
                UNION ALL SELECT NULL WHERE NOT everyone) w
        RETURNING lookups.id;
    PERFORM pg_notify(dispatch_channel(), 'lookup');
END $$;
COMMENT ON FUNCTION ask_workers IS 'Questions: {"kind": "preview", "change": 7, "files": ["a.rs"]}, {"kind": "file", "change": 7, "path": "a.rs", "side": "after"}, {"kind": "check_project", "project": "shop"}.';

-- ---------------------------------------------------------------- workers at rest

ALTER TABLE workers ADD COLUMN held_at timestamptz, ADD COLUMN held_by text;
COMMENT ON COLUMN workers.held_at IS 'Since when it takes no tasks because somebody said so; until resume_worker() or its next start.';

-- It finishes what it has and takes no more. Says whether that is news.
CREATE FUNCTION drain_worker(wanted uuid, actor text DEFAULT session_user) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE workers w SET held_at = now(), held_by = acting_as(actor) WHERE w.id = wanted AND w.held_at IS NULL;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = wanted) THEN
            RAISE EXCEPTION 'there is no worker %', wanted USING ERRCODE = 'no_data_found';
        END IF;
        RETURN false;
    END IF;
    INSERT INTO audit_log (actor, action, subject, detail)
    SELECT acting_as(drain_worker.actor), 'worker.drain', 'worker ' || w.name, jsonb_build_object('id', w.id)
      FROM workers w WHERE w.id = wanted;
    RETURN true;
END $$;

-- It takes tasks again. Says whether that is news.
CREATE FUNCTION resume_worker(wanted uuid, actor text DEFAULT session_user) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE workers w SET held_at = NULL, held_by = NULL WHERE w.id = wanted AND w.held_at IS NOT NULL;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = wanted) THEN
            RAISE EXCEPTION 'there is no worker %', wanted USING ERRCODE = 'no_data_found';
        END IF;
        RETURN false;
    END IF;
    INSERT INTO audit_log (actor, action, subject, detail)
    SELECT acting_as(resume_worker.actor), 'worker.resume', 'worker ' || w.name, jsonb_build_object('id', w.id)
      FROM workers w WHERE w.id = wanted;
    RETURN true;
END $$;

INSERT INTO rights (role, object, privileges) VALUES
    ('reviewer', 'lookups', 'SELECT'),
    ('worker', 'lookups', 'SELECT, UPDATE (token, taken_until, declined, answered_at, answered_by, answer)');
INSERT INTO rights (role, kind, object, privileges) VALUES ('reviewer', 'FUNCTION', 'ask_workers', 'EXECUTE');

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname = 'ask_workers'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('drain_worker', 'resume_worker')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
