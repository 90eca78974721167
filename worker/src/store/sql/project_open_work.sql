-- Walks the tables of unfinished work, which are small beside the history.
SELECT (SELECT count(*)
          FROM (SELECT task_id FROM ready_tasks UNION ALL SELECT task_id FROM later_tasks
                UNION ALL SELECT task_id FROM parked_tasks UNION ALL SELECT task_id FROM leases) open
          JOIN tasks t ON t.id = open.task_id
         WHERE t.project = $1::text) AS tasks,
       (SELECT count(*) FROM pending_changes c
         WHERE c.project = $1::text AND c.state IN ('pending', 'approved', 'conflicted')) AS changes
