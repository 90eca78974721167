-- Agent noop exists for benchmarks only, so that this is nobody else's.
SELECT coalesce(min(o.task_id), 9223372036854775807) AS first, coalesce(max(o.task_id), 0) AS last
  FROM (SELECT task_id FROM ready_tasks WHERE agent = 'noop'
        UNION ALL SELECT task_id FROM leases WHERE agent = 'noop') AS o
