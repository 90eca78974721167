-- A page of limits by key. What stands under a key is counted by the indexes that have it; a limit that a
-- project gave up keeps its row with the highest number there is (keep_project_limit).
SELECT l.limit_key AS key, nullif(l.max_running, 2147483647) AS max_running,
       (SELECT count(*) FROM leases s WHERE s.limit_key = l.limit_key) AS running,
       (SELECT count(*) FROM ready_tasks r WHERE r.limit_key = l.limit_key) AS ready,
       (SELECT count(*) FROM parked_tasks p WHERE p.limit_key = l.limit_key) AS waiting
  FROM limits l
 WHERE $1::text IS NULL OR l.limit_key > $1::text
 ORDER BY l.limit_key
 LIMIT $2::bigint
