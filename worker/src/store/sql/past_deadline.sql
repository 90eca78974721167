-- Whether an attempt that began in $2 milliseconds would begin after its task's deadline.
SELECT EXISTS (SELECT 1 FROM tasks
                WHERE id = $1::bigint AND deadline < clock_timestamp() + $2::bigint * interval '1 millisecond') AS late
