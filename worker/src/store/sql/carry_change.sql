-- What the task ends with, should no further attempt begin.
SELECT carry_change($1::bigint)
