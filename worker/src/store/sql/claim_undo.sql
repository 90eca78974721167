-- Take one applied change that shall be undone. $1 milliseconds of exclusive time; whoever comes
-- after that finds out from git whether it was done.
UPDATE pending_changes SET apply_token = nextval('lease_tokens'),
       apply_until = clock_timestamp() + $1::bigint * interval '1 millisecond'
 WHERE id = (SELECT c.id FROM pending_changes c
              WHERE c.undo_asked_at IS NOT NULL AND c.state = 'applied'
                AND (c.apply_until IS NULL OR c.apply_until < clock_timestamp())
              ORDER BY c.undo_asked_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, apply_token, project, target_ref, target_before, applied_commit,
          (extract(epoch FROM clock_timestamp() - undo_asked_at) * 1000)::bigint AS asked_ms
