-- An agent of a catalogue that no worker offers is listed too: somebody expects it to be there. All, or
-- the one that is named.
SELECT coalesce(a.name, c.name) AS name,
       coalesce(a.status, 'unavailable') AS status,
       coalesce(a.error, CASE WHEN a.name IS NULL THEN 'no worker offers it'
                              WHEN a.expires_at < now() THEN 'no live worker offers it' END) AS error,
       coalesce(a.workers, 0) AS workers, a.execution_path, a.version,
       coalesce(a.models, '[]') AS models, coalesce(a.modes, '[]') AS modes,
       coalesce(a.thinking_options, '[]') AS thinking_options,
       coalesce(a.commands, '[]') AS commands, coalesce(a.capabilities, '{}') AS capabilities,
       a.probed_at, a.expires_at
  FROM catalogue_agents c
  FULL JOIN available_agents a ON a.name = c.name
 WHERE $1::text IS NULL OR coalesce(a.name, c.name) = $1::text
 ORDER BY 1
