-- What the other doors refuse of a project is refused of plain SQL too.

-- Why a place is none of a repository; null: it is one. A program that knows more of git asks the same.
CREATE FUNCTION wrong_place(place text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN octet_length(place) > 4096 THEN 'it has more than 4096 bytes'
        WHEN place ~ '^/' THEN NULL
        WHEN place ~ '^[^/]*://' THEN CASE
            WHEN place !~ '^(https|ssh|http|git|file)://' THEN 'git does not reach that by itself: use one of https, ssh, http, git, file'
            WHEN place ~ '^[a-z]+://[^/]*:[^/]*@' THEN
                'it holds a password, which everybody who sees the project would see: leave it out, and give it to git''s own credential helper on the workers'
            WHEN place !~ '^(file://[^/]*/|[a-z]+://([^/@-][^/@]*@)?[^-/:@][^/@]*/)[^[:space:][:cntrl:]]+$' THEN 'the address names no host and repository, or has blanks in it'
            END
        WHEN place ~ '^([^/:@-][^/:@]*@)?[^/:@-][^/:@]*:[^:[:space:][:cntrl:]][^[:space:][:cntrl:]]*$' THEN NULL
        ELSE 'it is neither an absolute path nor an address' END
$$;

CREATE FUNCTION guard_place() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    why text := wrong_place(NEW.path);
BEGIN
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'the path of project % is no place of a repository: %', NEW.name, why
            USING ERRCODE = 'check_violation',
                  HINT = 'Give the repository''s absolute path as the workers see it, or an address such as https://git.example.com/shop.git.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER projects_place BEFORE INSERT OR UPDATE OF path ON projects
    FOR EACH ROW EXECUTE FUNCTION guard_place();

-- A project with open work stays: its tasks could not run, and its changes not be applied.
CREATE FUNCTION guard_open_work() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    open_tasks   bigint;
    open_changes bigint;
BEGIN
    -- Walks the tables of unfinished work, which are small beside the history.
    SELECT count(*) INTO open_tasks
      FROM (SELECT r.task_id FROM ready_tasks r UNION ALL SELECT l.task_id FROM later_tasks l
            UNION ALL SELECT k.task_id FROM parked_tasks k UNION ALL SELECT s.task_id FROM leases s) open
      JOIN tasks t ON t.id = open.task_id
     WHERE t.project = OLD.name;
    SELECT count(*) INTO open_changes FROM pending_changes c
     WHERE c.project = OLD.name AND c.state IN ('pending', 'approved', 'conflicted');
    IF open_tasks > 0 OR open_changes > 0 THEN
        RAISE EXCEPTION 'project % has % open tasks and % open changes', OLD.name, open_tasks, open_changes
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Cancel the tasks and decide on the changes first.';
    END IF;
    RETURN OLD;
END $$;

CREATE TRIGGER projects_open_work BEFORE DELETE ON projects
    FOR EACH ROW EXECUTE FUNCTION guard_open_work();

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('wrong_place', 'guard_place', 'guard_open_work')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        IF f::text !~ 'wrong_place' THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        END IF;
    END LOOP;
END $$;
