-- What the repeated request leaves to a default is not compared: the default may have moved.
SELECT t.id,
       t.project = $2::text AND t.input = $3::text
       AND t.agent = coalesce($4::text, t.agent)
       AND (t.model IS NOT DISTINCT FROM $5::text OR $5 IS NULL AND $4::text IS NULL AND $8::bigint IS NOT NULL)
       AND t.mode_id IS NOT DISTINCT FROM $6::text
       AND t.thinking_option_id IS NOT DISTINCT FROM $7::text
       AND t.conversation_id IS NOT DISTINCT FROM $8::bigint
       AND t.priority = coalesce($9::smallint, t.priority)
       AND t.run_at = coalesce($10::timestamptz, t.run_at)
       AND t.max_attempts = coalesce($11::smallint, t.max_attempts)
       AND t.timeout IS NOT DISTINCT FROM make_interval(secs => $12::float8)
       AND t.idle_timeout IS NOT DISTINCT FROM make_interval(secs => $13::float8)
       AND t.deadline IS NOT DISTINCT FROM $14::timestamptz
       AND t.limit_key IS NOT DISTINCT FROM $15::text
       AND t.fallback IS NOT DISTINCT FROM $16::text
       AND t.base_ref IS NOT DISTINCT FROM $17::text
       AND t.max_steps IS NOT DISTINCT FROM $18::integer
       AND t.max_tokens IS NOT DISTINCT FROM $19::bigint
       AND t.max_cost IS NOT DISTINCT FROM $20::numeric AS same
  FROM tasks t
 WHERE t.idempotency_key = $1::text
