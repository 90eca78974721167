-- Whose token this is, and what it is good for. When it was used is kept to the minute.
WITH known AS (
    SELECT t.id, t.name, t.scopes, t.last_used_at FROM tokens t
     WHERE t.hash = $1::bytea AND t.revoked_at IS NULL AND t.expires_at > now()
), told AS (
    UPDATE tokens t SET last_used_at = now() FROM known k
     WHERE t.id = k.id AND coalesce(k.last_used_at, '-infinity') < now() - interval '1 minute'
)
SELECT k.name, k.scopes FROM known k
