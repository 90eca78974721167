SELECT count(*) AS waiting FROM inbox i WHERE i.conversation_id = $1::bigint AND i.state IN ('waiting', 'held')
