-- Complete attempts that left nothing to store ($1 tasks, $2 tokens, $3 terminal seqs). A row that
-- has a cancel request, or another token, is left alone and not returned. Tokens are unique, so
-- that matching both lists matches the pairs.
WITH gone AS (
    DELETE FROM leases
     WHERE task_id = ANY ($1::bigint[]) AND token = ANY ($2::bigint[]) AND cancel_requested_at IS NULL
    RETURNING task_id, token, attempt, started_at
)
INSERT INTO outcomes (task_id, token, started_at, seq, attempt, state)
SELECT g.task_id, g.token, g.started_at, ($3::bigint[])[array_position($2::bigint[], g.token)], g.attempt, 'completed'
  FROM gone g
RETURNING task_id
