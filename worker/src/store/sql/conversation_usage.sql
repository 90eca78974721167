SELECT count(*) AS attempts, count(*) FILTER (WHERE u.total_tokens IS NULL) AS unknown,
       sum(u.total_tokens)::bigint AS total_tokens, sum(u.cost)::text AS cost, u.currency
  FROM tasks t
  JOIN usage_reports u ON u.task_id = t.id
 WHERE t.id = $1::bigint OR t.conversation_id = $1
 GROUP BY u.currency
 ORDER BY u.currency
