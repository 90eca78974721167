-- A summary ($5 its number, $7 role, $8 parts) stands for what the model saw up to message $4 of its
-- conversation, in the place of that one. Its own row is new to this statement and is not replaced by itself.
WITH held AS MATERIALIZED (
    SELECT l.task_id, l.attempt FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint FOR SHARE
), upto AS (
    SELECT m.ord FROM messages m WHERE m.conversation_id = $3::bigint AND m.seq = $4::bigint
), summary AS (
    INSERT INTO messages (conversation_id, seq, ord, task_id, attempt, step, role, parts)
    SELECT $3, $5::bigint, u.ord, h.task_id, h.attempt, $6::integer, $7::text, $8::jsonb
      FROM held h CROSS JOIN upto u
     WHERE EXISTS (SELECT 1 FROM messages b WHERE b.conversation_id = $3 AND b.seq = $5 - 1)
    ON CONFLICT (conversation_id, seq) DO NOTHING
    RETURNING seq, ord
), replaced AS (
    UPDATE messages m SET replaced_by = s.seq FROM summary s
     WHERE m.conversation_id = $3 AND m.ord <= s.ord AND m.replaced_by IS NULL AND m.lost_at IS NULL
)
SELECT (SELECT count(*) FROM summary) AS added FROM held h
