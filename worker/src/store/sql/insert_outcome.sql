INSERT INTO outcomes (task_id, token, started_at, seq, attempt, state, error_class, error, output_summary,
                      cost_tokens, cost, cancel_by)
SELECT $1::bigint, $2::bigint, $3::timestamptz, $4::bigint, $5::smallint, $6::text, $7::text, $8::text, $9::text,
       s.tokens, s.cost, $10::text
  FROM spent($1) s
