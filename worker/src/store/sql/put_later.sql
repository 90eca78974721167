-- The task goes back: attempt $2 next, not before $4 milliseconds from now.
INSERT INTO later_tasks (task_id, attempt, uncharged, run_at, reason)
VALUES ($1::bigint, $2::smallint, $3::smallint, clock_timestamp() + $4::bigint * interval '1 millisecond', $5::text)
