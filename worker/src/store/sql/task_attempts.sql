SELECT a.attempt, a.agent, a.fallback_from, a.execution_path, a.agent_version,
       coalesce(u.model, a.model) AS model, a.sandbox, a.network, a.base_commit, a.started_at,
       a.first_output_at, a.ended_at, a.end_kind, a.error_class, a.error, a.exit_code,
       a.exit_signal, a.stderr_tail, a.result_commit, u.source AS usage_source, u.input_tokens,
       u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens,
       u.total_tokens, u.cost::text AS cost, u.currency
  FROM attempts a
  LEFT JOIN usage_reports u ON u.task_id = a.task_id AND u.attempt = a.attempt
 WHERE a.task_id = $1::bigint
 ORDER BY a.attempt
