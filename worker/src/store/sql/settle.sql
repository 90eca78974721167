-- The task is over: nothing of it goes on, save what people sent and nobody took.
WITH forgotten AS (DELETE FROM carried_work WHERE task_id = $1::bigint)
SELECT settle_messages($1) AS follow_up
