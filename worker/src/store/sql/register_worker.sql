INSERT INTO workers (id, name, version, slots, sandbox) VALUES ($1::uuid, $2::text, $3::text, $4::integer, $5::text)
ON CONFLICT (id) DO UPDATE SET last_seen = now(), slots = EXCLUDED.slots
