INSERT INTO items (task_id, attempt, n, turn, conversation_id, kind, text, detail, ended_at)
SELECT i.task_id, i.attempt, i.n, 1, i.conversation_id, i.kind, i.text, i.detail, clock_timestamp()
  FROM unnest($1::bigint[], $2::smallint[], $3::integer[], $4::bigint[], $5::text[], $6::text[], $7::jsonb[])
       AS i (task_id, attempt, n, conversation_id, kind, text, detail)
ON CONFLICT (task_id, attempt, n) DO UPDATE SET text = EXCLUDED.text, detail = EXCLUDED.detail, ended_at = EXCLUDED.ended_at
