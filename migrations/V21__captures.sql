-- Requests to models as they were sent, where an agent's entry asks for it (native.capture_requests).

CREATE TABLE request_bodies (
    hash    bytea PRIMARY KEY,
    bytes   integer NOT NULL,
    body    text NOT NULL,
    used_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE request_bodies IS 'Each body once, by its SHA-256. Secrets are taken out; everything else is as it was sent.';

CREATE TABLE requests (
    task_id  bigint NOT NULL,
    attempt  smallint NOT NULL,
    n        integer NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    model    text NOT NULL,
    hash     bytea NOT NULL REFERENCES request_bodies,
    ended_at timestamptz,
    status   integer,
    error    text,
    PRIMARY KEY (task_id, attempt, n)
);
CREATE INDEX requests_at ON requests (at);
CREATE INDEX requests_hash ON requests (hash);
COMMENT ON TABLE requests IS 'What the built-in agent sent to a model, for seven days and up to a gigabyte. n counts from 0, summaries and what failed too.';
COMMENT ON COLUMN requests.ended_at IS 'When its answer was complete, or it failed; null: it broke off with its attempt, or runs.';

INSERT INTO rights (role, object, privileges) VALUES
    ('worker', 'requests', 'SELECT, INSERT, DELETE, UPDATE (ended_at, status, error)'),
    ('worker', 'request_bodies', 'SELECT, INSERT, DELETE, UPDATE (used_at)');
