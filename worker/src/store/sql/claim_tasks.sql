-- Take up to $5 ready tasks: per agent ($2) at most its free slots ($3), highest priority first,
-- then oldest. $4 holds a low-water mark per agent and priority level, so that the scan does not
-- walk over dead index entries; a sweep passes -infinity. LATERAL with a LIMIT inside keeps it
-- one index range per agent and level, also with a generic plan.
WITH picked AS MATERIALIZED (
    SELECT c.at
      FROM unnest($2::text[], $3::integer[]) WITH ORDINALITY AS w (agent, free, place)
      CROSS JOIN LATERAL (
          SELECT r.at
            FROM generate_series(9, 0, -1) AS level
            CROSS JOIN LATERAL (
                SELECT x.ctid AS at
                  FROM ready_tasks x
                 WHERE x.agent = w.agent AND x.priority = level::smallint
                   AND x.run_at >= ($4::timestamptz[])[(w.place - 1) * 10 + level + 1]
                   AND x.run_at <= now()
                 ORDER BY x.run_at, x.task_id
                 LIMIT w.free FOR UPDATE SKIP LOCKED) AS r
           LIMIT w.free) AS c
     LIMIT $5::integer
), gone AS (
    DELETE FROM ready_tasks WHERE ctid = ANY (ARRAY(SELECT p.at FROM picked p))
    RETURNING task_id, attempt, uncharged, agent, limit_key, priority, run_at
), held AS (
    INSERT INTO leases (task_id, token, worker_id, attempt, uncharged, agent, limit_key)
    SELECT g.task_id, nextval('lease_tokens'), $1::uuid, g.attempt, g.uncharged, g.agent, g.limit_key
      FROM gone g
    RETURNING task_id, token, attempt, uncharged, agent, limit_key
)
SELECT h.task_id, h.token, h.attempt, h.uncharged, h.agent, h.limit_key,
       t.project, t.input, t.asked_agent, t.model, t.mode_id, t.thinking_option_id, t.conversation_id,
       t.priority, t.run_at, t.max_attempts, t.timeout_ms, t.idle_timeout_ms, t.base_ref, t.submitted_by,
       CASE WHEN h.attempt > 1 THEN next_seq(h.task_id) ELSE 2 END AS next_seq
  FROM held h
  CROSS JOIN LATERAL (
      SELECT x.project, x.input, x.agent AS asked_agent, x.model, x.mode_id, x.thinking_option_id,
             x.conversation_id, x.priority, x.run_at, x.max_attempts, x.base_ref, x.submitted_by,
             CASE WHEN x.timeout IS NULL AND x.deadline IS NULL THEN NULL ELSE
                  (extract(epoch FROM least(x.timeout, x.deadline - now())) * 1000)::bigint END AS timeout_ms,
             (extract(epoch FROM x.idle_timeout) * 1000)::bigint AS idle_timeout_ms
        FROM tasks x WHERE x.id = h.task_id LIMIT 1) AS t
