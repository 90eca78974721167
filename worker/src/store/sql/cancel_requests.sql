-- Which of a worker's tasks somebody wants cancelled.
SELECT task_id FROM leases WHERE worker_id = $1::uuid AND cancel_requested_at IS NOT NULL
