-- Whether a ready task of one of the agents ($1) is older than its low-water mark ($2, ten an agent,
-- by priority): it was committed late, or its claim was rolled back, and cheap looks are blind to it.
SELECT EXISTS (
    SELECT 1
      FROM unnest($1::text[]) WITH ORDINALITY AS w (agent, place)
      CROSS JOIN generate_series(0, 9) AS level
      CROSS JOIN LATERAL (
          SELECT 1 FROM ready_tasks x
           WHERE x.agent = w.agent AND x.priority = level::smallint
             AND x.run_at < ($2::timestamptz[])[(w.place - 1) * 10 + level + 1]
           LIMIT 1) AS late) AS late
