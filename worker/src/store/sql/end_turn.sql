UPDATE turns SET ended_at = clock_timestamp(), stop_reason = $3::text
 WHERE task_id = $1::bigint AND attempt = $2::smallint AND turn = 1
