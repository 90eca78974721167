SELECT g.key, count(*) AS attempts, count(*) FILTER (WHERE g.total_tokens IS NULL) AS unknown,
       sum(g.input_tokens)::bigint AS input_tokens, sum(g.output_tokens)::bigint AS output_tokens,
       sum(g.cache_read_tokens)::bigint AS cache_read_tokens,
       sum(g.cache_write_tokens)::bigint AS cache_write_tokens,
       sum(g.reasoning_tokens)::bigint AS reasoning_tokens,
       sum(g.total_tokens)::bigint AS total_tokens, sum(g.cost)::text AS cost, g.currency
  FROM (SELECT CASE $1::text
                    WHEN 'task' THEN u.task_id::text
                    WHEN 'agent' THEN u.agent
                    WHEN 'model' THEN coalesce(u.model, 'unknown')
                    WHEN 'project' THEN t.project
                    ELSE to_char(u.at AT TIME ZONE 'UTC', 'YYYY-MM-DD') END AS key,
               u.task_id, u.input_tokens, u.output_tokens, u.cache_read_tokens,
               u.cache_write_tokens, u.reasoning_tokens, u.total_tokens, u.cost, u.currency
          FROM usage_reports u
          JOIN tasks t ON t.id = u.task_id
         WHERE ($2::bigint IS NULL OR u.task_id = $2::bigint)
           AND ($3::text IS NULL OR u.agent = $3::text)
           AND ($4::text IS NULL OR t.project = $4::text)
           AND ($5::timestamptz IS NULL OR u.at >= $5::timestamptz)
           AND ($6::float8 IS NULL OR u.at >= now() - make_interval(secs => $6::float8))) AS g
 GROUP BY g.key, g.currency
 ORDER BY CASE WHEN $1::text IN ('task', 'day') THEN NULL ELSE sum(g.total_tokens) END DESC NULLS LAST,
          max(g.task_id) DESC, g.key
 LIMIT $7::bigint
