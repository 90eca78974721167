-- The attempt ends: its lease goes, if it is still its own. Row count 0: somebody else has the task.
DELETE FROM leases WHERE task_id = $1::bigint AND token = $2::bigint
RETURNING started_at, cancel_requested_at IS NOT NULL AS cancel_requested, cancel_by, cancel_reason
