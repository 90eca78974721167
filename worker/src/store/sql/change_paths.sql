-- The files of a change, and which of them an approval of the rest would leave out.
SELECT f.path, f.path_bytes, f.state = 'rejected' AS rejected
  FROM pending_change_files f WHERE f.change_id = $1::bigint ORDER BY f.n
