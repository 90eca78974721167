-- The outcome's time is that of the transaction which stored the end of an attempt that does
-- nothing: it began, ran and ended before it.
SELECT task_id, (extract(epoch FROM ended_at) * 1000000)::bigint AS us FROM outcomes WHERE task_id = ANY ($1::bigint[])
