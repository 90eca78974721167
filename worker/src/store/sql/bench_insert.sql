INSERT INTO tasks (project, input, agent) SELECT 'bench', 'do nothing', 'noop' FROM generate_series(1, $1::bigint)
RETURNING id
