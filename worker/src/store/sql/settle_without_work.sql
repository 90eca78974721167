-- The task is over, and its last attempt kept nothing of what the ones before it did.
WITH forgotten AS MATERIALIZED (SELECT end_without_work($1::bigint))
SELECT settle_messages($1) AS follow_up FROM forgotten
