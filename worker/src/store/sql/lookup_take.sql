-- Take the oldest question, about an agent or not ($3), that worker $1 may answer and has not declined, for $2
-- milliseconds.
UPDATE lookups q SET token = nextval('lease_tokens'),
       taken_until = clock_timestamp() + $2::bigint * interval '1 millisecond'
 WHERE q.id = (SELECT l.id FROM lookups l
                WHERE l.answered_at IS NULL AND l.asked_at > now() - interval '10 minutes'
                  AND (l.worker_id IS NULL OR l.worker_id = $1::uuid) AND NOT $1 = ANY (l.declined)
                  AND (l.taken_until IS NULL OR l.taken_until < clock_timestamp())
                  AND (l.question ? 'agent') = $3::boolean
                ORDER BY l.id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING q.id, q.token, q.question
