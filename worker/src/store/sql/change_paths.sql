-- Exact paths of a change by decision: $2 approved ones, and whether that is all of them.
SELECT f.path_bytes, f.state = 'approved' AS approved FROM pending_change_files f WHERE f.change_id = $1::bigint ORDER BY f.n
