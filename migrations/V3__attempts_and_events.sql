-- What happened: attempts, their numbered events, conversations with turns and items, usage,
-- permission requests.

CREATE TABLE attempts (
    task_id           bigint NOT NULL,
    attempt           smallint NOT NULL,
    token             bigint NOT NULL,
    worker_id         uuid NOT NULL,
    agent             text NOT NULL,
    execution_path    text NOT NULL,
    command           jsonb NOT NULL DEFAULT '[]',
    agent_version     text,
    model             text,
    mode_id           text,
    thinking_option_id text,
    conversation_id   bigint NOT NULL,
    native_session_id text,
    base_commit       text,
    worktree          text,
    sandbox           text NOT NULL DEFAULT 'none',
    fallback_from     text,
    started_at        timestamptz NOT NULL DEFAULT now(),
    launched_at       timestamptz,
    first_output_at   timestamptz,
    turn_ended_at     timestamptz,
    ended_at          timestamptz,
    end_kind          text CHECK (end_kind IN ('succeeded', 'failed', 'timed_out', 'stalled',
                                               'cancelled', 'interrupted', 'lease_lost')),
    error_class       text,
    error             text,
    exit_code         integer,
    exit_signal       integer,
    stderr_tail       text,
    result_commit     text,
    result_ref        text,
    PRIMARY KEY (task_id, attempt)
);
COMMENT ON TABLE attempts IS 'One row per attempt that began to prepare a worktree; ends are facts, phases live in leases.';

CREATE TABLE events (
    task_id bigint NOT NULL,
    seq     bigint NOT NULL,
    attempt smallint NOT NULL,
    kind    text NOT NULL,
    payload jsonb NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (task_id, seq)
);
COMMENT ON TABLE events IS 'The stream of a task, numbered without gaps from 2; event 1 (task_submitted) is the tasks row, the terminal event is the outcomes row.';

CREATE TABLE conversations (
    id                bigint PRIMARY KEY,
    project           text NOT NULL,
    agent             text NOT NULL,
    native_session_id text,
    created_at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN conversations.id IS 'The id of the task that began the conversation.';

CREATE TABLE turns (
    task_id         bigint NOT NULL,
    attempt         smallint NOT NULL,
    turn            smallint NOT NULL,
    conversation_id bigint NOT NULL,
    started_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at        timestamptz,
    stop_reason     text,
    PRIMARY KEY (task_id, attempt, turn)
);

CREATE TABLE items (
    task_id         bigint NOT NULL,
    attempt         smallint NOT NULL,
    n               integer NOT NULL,
    turn            smallint NOT NULL,
    conversation_id bigint NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('user', 'text', 'thinking', 'tool_call', 'plan',
                                                  'notice', 'error')),
    text            text,
    detail          jsonb,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at        timestamptz,
    PRIMARY KEY (task_id, attempt, n)
);
CREATE INDEX items_conversation ON items (conversation_id, task_id, attempt, n);

CREATE TABLE usage_reports (
    task_id            bigint NOT NULL,
    attempt            smallint NOT NULL,
    token              bigint NOT NULL,
    at                 timestamptz NOT NULL DEFAULT now(),
    agent              text NOT NULL,
    model              text,
    source             text NOT NULL CHECK (source IN ('metered', 'reported', 'none')),
    input_tokens       bigint,
    output_tokens      bigint,
    cache_read_tokens  bigint,
    cache_write_tokens bigint,
    reasoning_tokens   bigint,
    total_tokens       bigint,
    context_tokens     bigint,
    cost               numeric,
    currency           text,
    cost_source        text CHECK (cost_source IN ('agent', 'price_table')),
    price              jsonb,
    raw                jsonb,
    PRIMARY KEY (task_id, attempt)
);
COMMENT ON TABLE usage_reports IS 'Exactly one row per attempt that ran an agent; NULL means unknown, never zero. input_tokens excludes cached ones.';

CREATE TABLE permission_requests (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id      bigint NOT NULL,
    attempt      smallint NOT NULL,
    token        bigint NOT NULL,
    agent        text NOT NULL,
    kind         text NOT NULL,
    title        text NOT NULL,
    detail       jsonb NOT NULL DEFAULT '{}',
    options      jsonb NOT NULL DEFAULT '[]',
    status       text NOT NULL DEFAULT 'pending'
                 CHECK (status IN ('pending', 'allowed', 'denied', 'expired', 'cancelled')),
    decided_by   text,
    note         text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    deadline_at  timestamptz,
    decided_at   timestamptz
);
CREATE INDEX permission_requests_task ON permission_requests (task_id);
CREATE INDEX permission_requests_open ON permission_requests (deadline_at) WHERE status = 'pending';
