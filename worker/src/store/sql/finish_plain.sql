-- Complete attempts that left nothing to store ($1 tasks, $2 tokens in ascending order, $3 terminal
-- seqs). A row that has a cancel request, or another token, is left alone and not returned.
-- width_bucket is a binary search: = ANY and array_position walk the whole list for each row.
WITH gone AS (
    DELETE FROM leases
     WHERE task_id = ANY ($1::bigint[]) AND cancel_requested_at IS NULL
       AND ($2::bigint[])[width_bucket(token, $2::bigint[])] = token
       AND ($1::bigint[])[width_bucket(token, $2::bigint[])] = task_id
    RETURNING task_id, token, attempt, started_at
)
INSERT INTO outcomes (task_id, token, started_at, seq, attempt, state)
SELECT g.task_id, g.token, g.started_at, ($3::bigint[])[width_bucket(g.token, $2::bigint[])], g.attempt, 'completed'
  FROM gone g
RETURNING task_id
