-- What was done stays, whoever deletes by hand; and refusals by SQL that say what to do.

-- ---------------------------------------------------------------- tasks

-- Events, costs, changes and the audit log speak of a task by its number. One that never ran and that
-- nothing follows may go, and the log keeps who submitted it.
CREATE FUNCTION refuse_delete_of_done() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM attempts a WHERE a.task_id = OLD.id)
       OR EXISTS (SELECT FROM pending_changes c WHERE c.task_id = OLD.id)
       OR EXISTS (SELECT FROM tasks t WHERE t.conversation_id = OLD.id) THEN
        RAISE EXCEPTION 'task % has a history', OLD.id
            USING ERRCODE = 'restrict_violation',
                  HINT = 'What a task did, cost and left stays. Only one that never ran can be deleted.';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER tasks_with_a_history_stay BEFORE DELETE ON tasks
    FOR EACH ROW EXECUTE FUNCTION refuse_delete_of_done();
ALTER TABLE tasks ENABLE ALWAYS TRIGGER tasks_with_a_history_stay;
CREATE TRIGGER tasks_stay BEFORE TRUNCATE ON tasks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('What tasks did, cost and left stays.');
ALTER TABLE tasks ENABLE ALWAYS TRIGGER tasks_stay;

CREATE FUNCTION audit_removed_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (acting_as(nullif(current_setting('dispatch.actor', true), '')), 'task.remove', 'task ' || OLD.id,
            jsonb_build_object('project', OLD.project, 'agent', OLD.agent,
                               'submitted_by', OLD.submitted_by, 'created_at', OLD.created_at));
    RETURN NULL;
END $$;
CREATE TRIGGER tasks_audit_removed AFTER DELETE ON tasks
    FOR EACH ROW EXECUTE FUNCTION audit_removed_task();

-- Row-level security says only that a rule was broken.
CREATE FUNCTION refuse_going_on_for_others() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Whoever sees rows of others may go on with them.
    IF NOT pg_has_role(current_user, (SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'MEMBER')
       AND NOT EXISTS (SELECT FROM tasks t WHERE t.id = NEW.conversation_id) THEN
        RAISE EXCEPTION 'conversation % was not begun by you', NEW.conversation_id
            USING ERRCODE = 'insufficient_privilege', HINT = 'Ask who began it, or an operator.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER tasks_go_on_with_own BEFORE INSERT ON tasks FOR EACH ROW
    WHEN (NEW.conversation_id IS NOT NULL) EXECUTE FUNCTION refuse_going_on_for_others();

-- ---------------------------------------------------------------- tokens

-- What a token may do is what create_token() recorded; the row of one that is over says who had it.
CREATE FUNCTION refuse_other_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'token % stays as it was made', OLD.id
        USING ERRCODE = 'restrict_violation',
              HINT = format('End it: SELECT revoke_token(%s). Make another: SELECT * FROM create_token(name, scopes).', OLD.id);
END $$;
CREATE TRIGGER tokens_stay BEFORE DELETE ON tokens FOR EACH ROW EXECUTE FUNCTION refuse_other_token();
ALTER TABLE tokens ENABLE ALWAYS TRIGGER tokens_stay;
CREATE TRIGGER tokens_stay_as_made BEFORE UPDATE ON tokens FOR EACH ROW
    WHEN ((NEW.id, NEW.name, NEW.hash, NEW.scopes, NEW.created_by, NEW.created_at)
          IS DISTINCT FROM (OLD.id, OLD.name, OLD.hash, OLD.scopes, OLD.created_by, OLD.created_at)
          OR NEW.expires_at > OLD.expires_at
          OR OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at
          OR (NEW.revoked_at IS NULL) <> (NEW.revoked_by IS NULL))
    EXECUTE FUNCTION refuse_other_token();
ALTER TABLE tokens ENABLE ALWAYS TRIGGER tokens_stay_as_made;
CREATE TRIGGER tokens_stay_all BEFORE TRUNCATE ON tokens
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('End tokens one by one: SELECT revoke_token(id).');
ALTER TABLE tokens ENABLE ALWAYS TRIGGER tokens_stay_all;

-- ---------------------------------------------------------------- reviews

-- "None of these files" is no decision.
CREATE FUNCTION refuse_review_of_nothing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no file of change % is named', NEW.change_id
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the files, or decide on the whole change.';
END $$;
CREATE TRIGGER reviews_of_something BEFORE INSERT ON reviews FOR EACH ROW
    WHEN (NEW.files = '{}') EXECUTE FUNCTION refuse_review_of_nothing();

-- ---------------------------------------------------------------- questions

-- A worker that cannot read a question takes it for one of a later version.
CREATE FUNCTION refuse_half_a_question() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    lacks text := CASE NEW.question ->> 'kind'
        WHEN 'preview' THEN CASE WHEN jsonb_typeof(NEW.question -> 'change') IS DISTINCT FROM 'number' THEN 'change' END
        WHEN 'file' THEN CASE
            WHEN jsonb_typeof(NEW.question -> 'change') IS DISTINCT FROM 'number' THEN 'change'
            WHEN jsonb_typeof(NEW.question -> 'path') IS DISTINCT FROM 'string' THEN 'path'
            WHEN coalesce(NEW.question ->> 'side', '') NOT IN ('before', 'after') THEN 'side' END
        WHEN 'check_project' THEN CASE WHEN jsonb_typeof(NEW.question -> 'project') IS DISTINCT FROM 'string' THEN 'project' END
    END;
BEGIN
    IF lacks IS NOT NULL THEN
        RAISE EXCEPTION 'the question lacks "%", or has it in another form', lacks
            USING ERRCODE = 'check_violation',
                  HINT = 'Such as {"kind": "preview", "change": 7}, {"kind": "file", "change": 7, "path": "a.rs", "side": "after"} or {"kind": "check_project", "project": "shop"}.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lookups_are_whole BEFORE INSERT ON lookups
    FOR EACH ROW EXECUTE FUNCTION refuse_half_a_question();

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('refuse_delete_of_done', 'audit_removed_task', 'refuse_going_on_for_others',
                                  'refuse_other_token', 'refuse_review_of_nothing', 'refuse_half_a_question')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
