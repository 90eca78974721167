-- Finished items of running attempts ($1 task, $2 token, …); those of lost leases are left out. A tool
-- call is put again when it changes after its end.
WITH held AS MATERIALIZED (
    SELECT l.token FROM leases l
     WHERE l.task_id = ANY ($1::bigint[]) AND l.token = ANY ($2::bigint[]) FOR SHARE
)
INSERT INTO items (task_id, attempt, n, turn, conversation_id, kind, text, detail, ended_at)
SELECT DISTINCT ON (i.task_id, i.attempt, i.n)
       i.task_id, i.attempt, i.n, 1, i.conversation_id, i.kind, i.text, i.detail, clock_timestamp()
  FROM unnest($1, $2, $3::smallint[], $4::integer[], $5::bigint[], $6::text[], $7::text[], $8::jsonb[]) WITH ORDINALITY
       AS i (task_id, token, attempt, n, conversation_id, kind, text, detail, place)
 WHERE i.token = ANY (ARRAY(SELECT h.token FROM held h))
 ORDER BY i.task_id, i.attempt, i.n, i.place DESC
ON CONFLICT (task_id, attempt, n) DO UPDATE SET text = EXCLUDED.text, detail = EXCLUDED.detail, ended_at = EXCLUDED.ended_at
