SELECT r.at, r.actor, r.verdict, r.files, r.digest, r.comment
  FROM reviews r
 WHERE r.change_id = $1::bigint
 ORDER BY r.id
