SELECT t.id, t.name, t.scopes, t.created_by, t.created_at, t.expires_at, t.last_used_at, t.revoked_at, t.revoked_by,
       CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked' WHEN t.expires_at <= now() THEN 'expired' ELSE 'valid' END
           AS state
  FROM tokens t WHERE t.id < $1::bigint ORDER BY t.id DESC LIMIT $2::bigint
