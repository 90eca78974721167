-- A conversation has the number of the task that began it.
WITH first AS (
    SELECT t.id, t.project, t.created_at, t.submitted_by, t.input FROM tasks t
     WHERE t.conversation_id IS NULL AND t.id >= $1::bigint AND t.id < $2::bigint
       AND t.project = coalesce($3::text, t.project)
     ORDER BY t.id DESC LIMIT $4::bigint
)
SELECT f.id, f.project, l.agent, n.tasks, l.id AS last_task_id, s.state AS last_state, f.created_at AS began_at,
       l.created_at AS last_at, f.submitted_by,
       left(split_part(ltrim(f.input, E' \t\r\n'), E'\n', 1), 200) AS title,
       (SELECT x.attention FROM tasks t JOIN task_status x ON x.id = t.id
         WHERE (t.id = f.id OR t.conversation_id = f.id) AND x.attention IS NOT NULL
         ORDER BY array_position('{permission,conflict,review,blocked,failed}', x.attention) LIMIT 1) AS attention
  FROM first f
 CROSS JOIN LATERAL (SELECT count(*) AS tasks, max(t.id) AS last FROM tasks t
                      WHERE t.id = f.id OR t.conversation_id = f.id) n
  JOIN tasks l ON l.id = n.last
  JOIN task_status s ON s.id = n.last
 ORDER BY f.id DESC
