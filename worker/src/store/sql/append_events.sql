-- Append rows of running attempts ($1 task, $2 token, $3 seq, $4 attempt, $5 kind, $6 payload). Rows of
-- an attempt that lost its lease are left out: FOR SHARE makes a rescuer wait for us or us for him.
-- ON CONFLICT makes a repeated flush after a lost answer harmless.
WITH held AS MATERIALIZED (
    SELECT l.token FROM leases l
     WHERE l.task_id = ANY ($1::bigint[]) AND l.token = ANY ($2::bigint[]) FOR SHARE
), added AS (
    INSERT INTO events (task_id, seq, attempt, kind, payload)
    SELECT e.task_id, e.seq, e.attempt, e.kind, e.payload
      FROM unnest($1, $2, $3::bigint[], $4::smallint[], $5::text[], $6::jsonb[])
           AS e (task_id, token, seq, attempt, kind, payload)
     WHERE e.token = ANY (ARRAY(SELECT h.token FROM held h))
    ON CONFLICT (task_id, seq) DO NOTHING
)
SELECT h.token FROM held h
