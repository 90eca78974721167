-- Take one approved change to apply. $1 milliseconds of exclusive time; whoever comes after that
-- finds out from git whether it was done.
UPDATE pending_changes SET apply_token = nextval('lease_tokens'),
       apply_until = clock_timestamp() + $1::bigint * interval '1 millisecond'
 WHERE id = (SELECT c.id FROM pending_changes c
              WHERE c.state = 'approved' AND (c.apply_until IS NULL OR c.apply_until < clock_timestamp())
              ORDER BY c.decided_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, apply_token, task_id, attempt, project, base_commit, result_commit, digest, decided_by, decided_at
