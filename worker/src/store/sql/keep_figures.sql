-- What a request to a model came to, once.
INSERT INTO steps (task_id, attempt, kind, n, conversation_id, model, finish, input_tokens, output_tokens,
                   cache_read_tokens, cache_write_tokens, reasoning_tokens, total_tokens, context_tokens, cost,
                   currency, raw, ttft_ms, decode_ms, request_ms, tools_ms, total_ms, retries,
                   estimated_tokens, estimated_cost)
SELECT l.task_id, l.attempt, $3::text, $4::integer, $5::bigint, $6::text, $7::text, $8::bigint, $9::bigint,
       $10::bigint, $11::bigint, $12::bigint, $13::bigint, $14::bigint, $15::numeric,
       $16::text, $17::jsonb, $18::bigint, $19::bigint, $20::bigint, $21::bigint, $22::bigint, $23::integer,
       $24::bigint, $25::numeric
  FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint
ON CONFLICT (task_id, attempt, kind, n) DO NOTHING
