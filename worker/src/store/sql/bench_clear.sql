-- What a driver that was killed left: its tasks end as cancelled, its worker is forgotten, and with
-- it its armed bell, which would make the next inserts notify. Agent noop is nobody else's.
WITH dead AS (
    DELETE FROM workers WHERE name = 'bench' RETURNING id
), silent AS (
    DELETE FROM bells WHERE worker_id IN (SELECT d.id FROM dead d)
), unoffered AS (
    DELETE FROM agent_offers WHERE worker_id IN (SELECT d.id FROM dead d)
), waiting AS (
    DELETE FROM ready_tasks WHERE agent = 'noop' RETURNING task_id, attempt
), running AS (
    DELETE FROM leases WHERE agent = 'noop' RETURNING task_id, attempt
)
INSERT INTO outcomes (task_id, seq, attempt, state)
SELECT o.task_id, 2, o.attempt, 'cancelled'
  FROM (SELECT task_id, attempt FROM waiting UNION ALL SELECT task_id, attempt FROM running) AS o
