-- How attempts are confined: what a project allows, what a worker can, what an attempt had.

ALTER TABLE projects ADD COLUMN sandbox text
    CONSTRAINT project_sandbox_is_known CHECK (sandbox IN ('required', 'optional', 'none'));
COMMENT ON COLUMN projects.sandbox IS
    'Lowers what an agent''s entry demands for attempts of this project: optional or none; null: as the entry says.';

ALTER TABLE attempts ADD COLUMN network text NOT NULL DEFAULT 'full';
COMMENT ON COLUMN attempts.sandbox IS
    'Rung of the ladder that the attempt ran on: bubblewrap, landlock+uid, landlock or none.';
COMMENT ON COLUMN attempts.network IS 'What it could reach: full, gateway or none.';

ALTER TABLE workers ADD COLUMN sandbox text NOT NULL DEFAULT 'none';
COMMENT ON COLUMN workers.sandbox IS 'Best rung of the ladder that works on its machine.';
