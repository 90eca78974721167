-- The task is over, and nothing keeps what its attempts did.
WITH forgotten AS MATERIALIZED (SELECT end_without_work($1::bigint))
SELECT settle_messages($1) AS follow_up FROM forgotten
