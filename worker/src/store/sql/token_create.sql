SELECT t.id, t.token, t.expires_at
  FROM create_token($1::text, $2::text[], make_interval(secs => $3::float8), $4::text) t
