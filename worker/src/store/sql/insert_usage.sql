INSERT INTO usage_reports (task_id, attempt, token, agent, model, source, input_tokens, output_tokens, cache_read_tokens,
                           cache_write_tokens, reasoning_tokens, total_tokens, context_tokens, cost, currency,
                           cost_source, price, raw)
VALUES ($1::bigint, $2::smallint, $3::bigint, $4::text, $5::text, $6::text, $7::bigint, $8::bigint, $9::bigint,
        $10::bigint, $11::bigint, $12::bigint, $13::bigint, $14::numeric, $15::text, $16::text, $17::jsonb, $18::jsonb)
ON CONFLICT (task_id, attempt) DO NOTHING
