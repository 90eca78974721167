WITH project AS (
    INSERT INTO projects (name, path) VALUES ('bench', '/nonexistent') ON CONFLICT DO NOTHING
)
INSERT INTO catalogue_agents (name) VALUES ('noop') ON CONFLICT DO NOTHING
