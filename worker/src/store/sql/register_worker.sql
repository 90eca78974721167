INSERT INTO workers (id, name, version, slots, sandbox, tries_agents)
VALUES ($1::uuid, $2::text, $3::text, $4::integer, $5::text, true)
ON CONFLICT (id) DO UPDATE SET last_seen = now(), slots = EXCLUDED.slots
