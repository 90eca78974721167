-- As end_lease, for a rescuer: only while the worker is still not seen for $3 milliseconds.
DELETE FROM leases l
 WHERE l.task_id = $1::bigint AND l.token = $2::bigint
   AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = l.worker_id
                    AND w.last_seen > now() - $3::bigint * interval '1 millisecond')
RETURNING started_at, cancel_requested_at IS NOT NULL AS cancel_requested, cancel_by, cancel_reason
