SELECT requeue_task($1::bigint, $2::text)
