-- Take one approved change to apply. $1 milliseconds of exclusive time; whoever comes after that
-- (resumed) finds out from git whether it was done.
UPDATE pending_changes p SET apply_token = nextval('lease_tokens'),
       apply_until = clock_timestamp() + $1::bigint * interval '1 millisecond'
  FROM (SELECT c.id, c.apply_token IS NOT NULL AS resumed FROM pending_changes c
         WHERE c.state = 'approved' AND (c.apply_until IS NULL OR c.apply_until < clock_timestamp())
         ORDER BY c.decided_at LIMIT 1 FOR UPDATE SKIP LOCKED) due
 WHERE p.id = due.id
RETURNING p.id, p.apply_token, due.resumed, p.task_id, p.attempt, p.project, p.base_commit,
          p.result_commit, p.digest, p.decided_by, p.decided_at
