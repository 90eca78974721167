-- Forget bodies that no request has; one that was used just now may get one.
DELETE FROM request_bodies b
 WHERE b.used_at < now() - interval '10 minutes' AND NOT EXISTS (SELECT FROM requests r WHERE r.hash = b.hash)
