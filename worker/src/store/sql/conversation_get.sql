SELECT f.id, f.project, l.agent, n.tasks, l.id AS last_task_id, s.state AS last_state, f.created_at AS began_at,
       l.created_at AS last_at, f.submitted_by,
       left(split_part(ltrim(f.input, E' \t\r\n'), E'\n', 1), 200) AS title
  FROM tasks f
 CROSS JOIN LATERAL (SELECT count(*) AS tasks, max(t.id) AS last FROM tasks t
                      WHERE t.id = f.id OR t.conversation_id = f.id) n
  JOIN tasks l ON l.id = n.last
  JOIN task_status s ON s.id = n.last
 WHERE f.id = $1::bigint
