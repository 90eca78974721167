-- A change as it would be applied now.
SELECT c.project, c.base_commit, c.result_commit, c.digest, coalesce(c.decided_at, c.created_at) AS decided_at
  FROM pending_changes c WHERE c.id = $1::bigint
