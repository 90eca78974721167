-- The agent's own session, for the next turn of the conversation.
UPDATE conversations SET native_session_id = $2::text, agent = $3::text WHERE id = $1::bigint
