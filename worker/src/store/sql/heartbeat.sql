-- One round trip: show life; learn which of the attempts are to be cancelled and which are lost.
-- $3/$4 are tasks and tokens that the worker believes it holds.
WITH alive AS (
    UPDATE workers SET last_seen = now(), draining = $2::boolean WHERE id = $1::uuid RETURNING id, held_at
)
SELECT (SELECT count(*) FROM alive) = 1 AS known,
       EXISTS (SELECT 1 FROM alive WHERE held_at IS NOT NULL) AS held,
       ARRAY(SELECT l.task_id FROM leases l WHERE l.worker_id = $1 AND l.cancel_requested_at IS NOT NULL) AS cancelled,
       ARRAY(SELECT h.token FROM unnest($3::bigint[], $4::bigint[]) AS h (task_id, token)
              WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE l.task_id = h.task_id AND l.token = h.token)) AS lost
