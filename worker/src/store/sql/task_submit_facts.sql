SELECT EXISTS (SELECT 1 FROM projects p WHERE p.name = $1::text) AS project_exists,
       coalesce($2::text,
                (SELECT t.agent FROM tasks t WHERE t.id = $3::bigint OR t.conversation_id = $3
                  ORDER BY t.id DESC LIMIT 1),
                (SELECT p.default_agent FROM projects p WHERE p.name = $1::text),
                (SELECT s.value FROM settings s WHERE s.name = 'default_agent')) AS agent,
       ARRAY(SELECT c.name FROM catalogue_agents c ORDER BY c.name) AS known_agents,
       ARRAY(SELECT p.name FROM projects p ORDER BY p.created_at DESC LIMIT 10) AS projects
