-- What an attempt left: one pending change with a row per file, its objects as a thin pack,
-- and the decisions of reviewers.

CREATE TABLE pending_changes (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id           bigint NOT NULL,
    attempt           smallint NOT NULL,
    token             bigint NOT NULL UNIQUE,
    project           text NOT NULL,
    state             text NOT NULL DEFAULT 'pending'
                      CHECK (state IN ('pending', 'approved', 'rejected', 'applied', 'conflicted', 'superseded', 'undone')),
    partial           boolean NOT NULL DEFAULT false,
    base_commit       text NOT NULL,
    result_tree       text NOT NULL,
    result_commit     text NOT NULL,
    result_ref        text NOT NULL,
    digest            text NOT NULL,
    files             integer NOT NULL,
    added_lines       bigint NOT NULL,
    removed_lines     bigint NOT NULL,
    notices           jsonb NOT NULL DEFAULT '[]',
    created_at        timestamptz NOT NULL DEFAULT now(),
    decided_at        timestamptz,
    decided_by        text,
    follow_up_task_id bigint,
    superseded_by     bigint,
    target_ref        text,
    target_before     text,
    applied_commit    text,
    applied_at        timestamptz,
    undo_ref          text,
    undo_asked_at     timestamptz,
    undo_asked_by     text,
    undone_at         timestamptz,
    conflicts         jsonb,
    apply_error       text,
    apply_token       bigint,
    apply_until       timestamptz
);
CREATE INDEX pending_changes_task ON pending_changes (task_id);
CREATE INDEX pending_changes_open ON pending_changes (state, created_at) WHERE state IN ('pending', 'approved', 'conflicted');
CREATE INDEX pending_changes_undo ON pending_changes (undo_asked_at) WHERE undo_asked_at IS NOT NULL AND state = 'applied';
-- At most one change of a task can be decided on.
CREATE UNIQUE INDEX pending_changes_live ON pending_changes (task_id)
    WHERE state IN ('pending', 'approved', 'conflicted');
COMMENT ON COLUMN pending_changes.digest IS 'SHA-256 over base, result tree and file rows; a decision must name it.';
COMMENT ON COLUMN pending_changes.apply_token IS 'Set while a worker applies an approved change, and while nobody knows whether one that died has done it.';
COMMENT ON COLUMN pending_changes.partial IS 'The attempt did not succeed; this is what it had written when it ended.';

CREATE TABLE pending_change_files (
    change_id     bigint NOT NULL REFERENCES pending_changes ON DELETE CASCADE,
    n             integer NOT NULL,
    path          text NOT NULL,
    path_bytes    bytea NOT NULL,
    old_path      text,
    old_path_bytes bytea,
    operation     text NOT NULL CHECK (operation IN ('create', 'edit', 'delete', 'rename', 'mode')),
    kind          text NOT NULL CHECK (kind IN ('text', 'binary', 'symlink', 'submodule')),
    old_mode      integer,
    new_mode      integer,
    old_blob      text,
    new_blob      text,
    added_lines   integer,
    removed_lines integer,
    patch         text,
    patch_cut     boolean NOT NULL DEFAULT false,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'rejected')),
    flags         text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (change_id, n)
);
COMMENT ON COLUMN pending_change_files.path IS 'The path for people (bytes that are not UTF-8 shown as \xNN); path_bytes is exact.';
COMMENT ON COLUMN pending_change_files.patch IS 'A view, never applied; patch_cut says that it does not show everything.';

CREATE TABLE change_packs (
    change_id bigint PRIMARY KEY REFERENCES pending_changes ON DELETE CASCADE,
    bytes     bigint NOT NULL,
    pack      bytea NOT NULL
);
ALTER TABLE change_packs ALTER COLUMN pack SET STORAGE EXTERNAL;

CREATE TABLE reviews (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    change_id bigint NOT NULL REFERENCES pending_changes ON DELETE CASCADE,
    at        timestamptz NOT NULL DEFAULT now(),
    actor     text NOT NULL,
    verdict   text NOT NULL CHECK (verdict IN ('approved', 'rejected', 'changes_requested')),
    files     text[],
    digest    text,
    comment   text
);
CREATE INDEX reviews_change ON reviews (change_id);
CREATE TRIGGER reviews_never_change BEFORE UPDATE ON reviews
    FOR EACH ROW EXECUTE FUNCTION refuse_change('Add another review instead.');

-- The legal moves of a change; domain/change.rs holds the same list and a test compares them.
CREATE TABLE change_moves (
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (from_state, to_state)
);
INSERT INTO change_moves VALUES
    ('pending', 'approved'), ('pending', 'rejected'), ('pending', 'superseded'),
    ('approved', 'applied'), ('approved', 'conflicted'), ('approved', 'rejected'),
    ('applied', 'undone'),
    ('conflicted', 'approved'), ('conflicted', 'rejected'), ('conflicted', 'superseded');

CREATE FUNCTION guard_change_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM change_moves m WHERE m.from_state = OLD.state AND m.to_state = NEW.state) THEN
        RAISE EXCEPTION 'change % is %, it cannot become %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER pending_changes_guard BEFORE UPDATE OF state ON pending_changes
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION guard_change_move();
