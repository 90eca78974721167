-- Take the oldest question of kind $3 that worker $1 may answer and has not declined, for $2 milliseconds: probe,
-- check, or repository for all others. What is tried of an agent is tried once: it may cost money.
UPDATE lookups q SET token = nextval('lease_tokens'),
       taken_until = clock_timestamp() + $2::bigint * interval '1 millisecond'
 WHERE q.id = (SELECT l.id FROM lookups l
                WHERE l.answered_at IS NULL
                  AND (l.worker_id IS NULL OR l.worker_id = $1::uuid) AND NOT $1 = ANY (l.declined)
                  AND CASE WHEN l.question ? 'agent'
                      THEN l.question ->> 'kind' = $3::text AND l.token IS NULL
                           AND l.asked_at > now() - interval '1 hour'
                      ELSE 'repository' = $3 AND (l.taken_until IS NULL OR l.taken_until < clock_timestamp())
                           AND l.asked_at > now() - interval '10 minutes' END
                ORDER BY l.id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING q.id, q.token, q.question
