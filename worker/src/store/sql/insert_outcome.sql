INSERT INTO outcomes (task_id, token, started_at, seq, attempt, state, error_class, error, output_summary,
                      cost_tokens, cost, cancel_by)
VALUES ($1::bigint, $2::bigint, $3::timestamptz, $4::bigint, $5::smallint, $6::text, $7::text, $8::text, $9::text,
        (SELECT sum(u.total_tokens)::bigint FROM usage_reports u WHERE u.task_id = $1),
        (SELECT sum(u.cost) FROM usage_reports u WHERE u.task_id = $1), $10::text)
