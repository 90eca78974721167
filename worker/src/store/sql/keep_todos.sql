WITH held AS MATERIALIZED (
    SELECT 1 FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint FOR SHARE
)
UPDATE conversations c SET todos = $4::jsonb WHERE c.id = $3::bigint AND EXISTS (SELECT 1 FROM held) RETURNING c.id
