-- Projects and tasks: what people ask for. A task never changes after it is inserted;
-- where it stands is told by the table that holds it (V2).

CREATE TABLE settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);
COMMENT ON TABLE settings IS 'Fleet-wide settings that SQL submitters need: default_agent.';

CREATE TABLE projects (
    name          text PRIMARY KEY
                  CONSTRAINT project_name_is_a_slug CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    path          text NOT NULL,
    target_ref    text,
    worktree      text NOT NULL DEFAULT 'private'
                  CONSTRAINT worktree_is_private_or_linked CHECK (worktree IN ('private', 'linked')),
    trusted       boolean NOT NULL DEFAULT false,
    default_agent text,
    max_running   integer CONSTRAINT max_running_is_positive CHECK (max_running > 0),
    copy_files    text[] NOT NULL DEFAULT '{}',
    setup         text,
    teardown      text,
    created_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN projects.target_ref IS 'Branch that results are applied to, as refs/heads/…; null: the branch HEAD names.';
COMMENT ON COLUMN projects.max_running IS 'At most this many tasks of the project run at a time, those with a limit_key of their own left out; null: no limit.';
COMMENT ON COLUMN projects.copy_files IS 'Untracked files (globs) copied into each worktree, for example .env.';

-- What the columns may hold is checked once per INSERT, by admit_tasks() (V2): the CHECKs that stood
-- here were read anew from the catalogue by every statement, at half the price of a single insert.
CREATE TABLE tasks (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project            text NOT NULL,
    input              text NOT NULL,
    agent              text NOT NULL,
    model              text,
    mode_id            text,
    thinking_option_id text,
    conversation_id    bigint,
    priority           smallint NOT NULL DEFAULT 5,
    run_at             timestamptz NOT NULL DEFAULT now(),
    max_attempts       smallint NOT NULL DEFAULT 3,
    timeout            interval,
    idle_timeout       interval,
    deadline           timestamptz,
    limit_key          text,
    idempotency_key    text,
    fallback           text,
    base_ref           text,
    submitted_by       text NOT NULL DEFAULT session_user,
    created_at         timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tasks IS 'INSERT INTO tasks(project, input) is the public way to submit; everything else has a default.';
COMMENT ON COLUMN tasks.priority IS '0 to 9; 9 runs first.';
COMMENT ON COLUMN tasks.conversation_id IS 'Continue the conversation that this task id began; null: begin a new one.';
COMMENT ON COLUMN tasks.limit_key IS 'Tasks that share a key run at most limits.max_running (default 1) at a time; it stands in for the limit of the project.';
COMMENT ON COLUMN tasks.fallback IS 'Agent to run instead when no live worker offers the one asked for; never used silently.';
COMMENT ON COLUMN tasks.base_ref IS 'Commit or branch to start from; null: the tip of the project''s target branch.';

CREATE UNIQUE INDEX tasks_idempotency_key ON tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX tasks_conversation ON tasks (conversation_id) WHERE conversation_id IS NOT NULL;

-- A task is never edited: a changed request is a new task.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% rows are never changed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
END $$;
CREATE TRIGGER tasks_never_change BEFORE UPDATE ON tasks
    FOR EACH ROW EXECUTE FUNCTION refuse_change('Cancel the task with cancel_task(id) and insert a new one.');

-- Fill the agent of a task that names none: the project's, else the fleet's.
CREATE FUNCTION fill_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
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
CREATE TRIGGER tasks_fill_agent BEFORE INSERT ON tasks
    FOR EACH ROW WHEN (NEW.agent IS NULL) EXECUTE FUNCTION fill_agent();

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text NOT NULL,
    action  text NOT NULL,
    subject text NOT NULL,
    detail  jsonb NOT NULL DEFAULT '{}'
);
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_change('The audit log is append-only.');
