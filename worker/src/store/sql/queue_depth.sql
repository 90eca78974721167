-- For metrics. The tables hold live rows only.
SELECT r.tasks AS ready, r.oldest_s,
       (SELECT count(*) FROM later_tasks) AS later,
       (SELECT count(*) FROM parked_tasks) AS parked,
       (SELECT count(*) FROM leases) AS running
  FROM (SELECT count(*) AS tasks,
               coalesce(extract(epoch FROM now() - min(x.run_at)), 0)::float8 AS oldest_s FROM ready_tasks x) r
