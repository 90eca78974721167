SELECT s.attempt, s.n, s.kind, s.model, s.finish, s.input_tokens, s.output_tokens, s.cache_read_tokens,
       s.cache_write_tokens, s.reasoning_tokens, s.total_tokens, s.context_tokens, s.cost::text AS cost, s.currency,
       s.ttft_ms, s.decode_ms, s.request_ms, s.tools_ms, s.total_ms, s.retries, s.at
  FROM steps s
 WHERE s.task_id = $1::bigint AND (s.attempt, s.n, s.kind) > ($2::smallint, $3::integer, $4::text)
 ORDER BY s.attempt, s.n, s.kind LIMIT $5::bigint
