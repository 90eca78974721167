-- What this worker offers now; $1 worker, the rest one element per agent.
WITH known AS (
    INSERT INTO catalogue_agents (name) SELECT unnest($2::text[]) ON CONFLICT (name) DO UPDATE SET listed_at = now()
), withdrawn AS (
    -- A fallback must not wait until the offer of an agent that is gone has run out.
    DELETE FROM agent_offers WHERE worker_id = $1::uuid AND NOT name = ANY ($2)
)
INSERT INTO agent_offers (worker_id, name, status, error, execution_path, version, models, modes, thinking_options,
                          commands, capabilities, slots, fallback, probed_at, expires_at)
SELECT $1::uuid, o.name, o.status, o.error, o.execution_path, o.version, o.models, o.modes, o.thinking_options,
       o.commands, o.capabilities, o.slots, o.fallback, now(), now() + $14::bigint * interval '1 millisecond'
  FROM unnest($2, $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::jsonb[], $9::jsonb[], $10::jsonb[],
              $11::jsonb[], $12::integer[], $13::text[])
       AS o (name, status, error, execution_path, version, models, modes, thinking_options, commands, capabilities,
             slots, fallback)
ON CONFLICT (name, worker_id) DO UPDATE
   SET status = EXCLUDED.status, error = EXCLUDED.error, execution_path = EXCLUDED.execution_path,
       version = EXCLUDED.version, models = EXCLUDED.models, modes = EXCLUDED.modes,
       thinking_options = EXCLUDED.thinking_options, commands = EXCLUDED.commands,
       capabilities = EXCLUDED.capabilities, slots = EXCLUDED.slots, fallback = EXCLUDED.fallback,
       probed_at = EXCLUDED.probed_at, expires_at = EXCLUDED.expires_at
