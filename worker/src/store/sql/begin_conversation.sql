-- Conversation, turn and first message in one statement; the conversation may be there already.
WITH mine AS (
    SELECT l.task_id, l.attempt FROM leases l WHERE l.task_id = $1::bigint AND l.token = $2::bigint
), conversation AS (
    INSERT INTO conversations (id, project, agent)
    SELECT $3::bigint, $4::text, $5::text FROM mine
    ON CONFLICT (id) DO NOTHING
), turn AS (
    INSERT INTO turns (task_id, attempt, turn, conversation_id)
    SELECT m.task_id, m.attempt, 1, $3 FROM mine m
)
INSERT INTO items (task_id, attempt, n, turn, conversation_id, kind, text, ended_at)
SELECT m.task_id, m.attempt, 0, 1, $3, 'user', $6::text, clock_timestamp() FROM mine m
