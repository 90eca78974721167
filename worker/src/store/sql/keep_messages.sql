-- What a step ($5) adds to its conversation ($3), numbered from $4 on ($6 roles, $7 parts), while the
-- attempt holds its lease. Written again after a lost answer it adds nothing; nor would it leave a gap.
WITH held AS MATERIALIZED (
    SELECT l.task_id, l.attempt FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint FOR SHARE
), added AS (
    INSERT INTO messages (conversation_id, seq, ord, task_id, attempt, step, role, parts)
    SELECT $3::bigint, $4::bigint + m.n - 1, $4 + m.n - 1, h.task_id, h.attempt, $5::integer, m.role, m.parts
      FROM held h CROSS JOIN unnest($6::text[], $7::jsonb[]) WITH ORDINALITY AS m (role, parts, n)
     WHERE $4 = 1 OR EXISTS (SELECT 1 FROM messages b WHERE b.conversation_id = $3 AND b.seq = $4 - 1)
    ON CONFLICT (conversation_id, seq) DO NOTHING
    RETURNING seq
)
SELECT (SELECT count(*) FROM added) AS added FROM held h
