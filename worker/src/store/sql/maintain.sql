SELECT moved, next_due_ms FROM maintain($1::integer)
