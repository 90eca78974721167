INSERT INTO tasks (project, input, agent, model, mode_id, thinking_option_id, conversation_id,
                   priority, run_at, max_attempts, timeout, idle_timeout, deadline, limit_key,
                   idempotency_key, fallback, base_ref, submitted_by,
                   max_steps, max_tokens, max_cost)
VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::bigint,
        coalesce($8::smallint, 5),
        coalesce($9::timestamptz, now() + make_interval(secs => coalesce($10::float8, 0))),
        coalesce($11::smallint, 3),
        make_interval(secs => $12::float8), make_interval(secs => $13::float8),
        $14::timestamptz, $15::text, $16::text, $17::text, $18::text, $19::text,
        $20::integer, $21::bigint, $22::numeric)
ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
