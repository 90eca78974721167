-- Whether this attempt's end is already stored: asked after a COMMIT whose answer was lost.
SELECT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = $1::bigint AND o.token = $2::bigint)
    OR EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = $1 AND a.token = $2 AND a.ended_at IS NOT NULL) AS stored
