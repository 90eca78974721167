SELECT t.input, t.agent, t.submitted_by FROM tasks t WHERE t.id = $1::bigint
