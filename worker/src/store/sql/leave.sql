-- A worker stops in good order: nothing of it is left to rescue.
WITH bell AS (DELETE FROM bells WHERE worker_id = $1::uuid),
     offers AS (UPDATE agent_offers SET expires_at = now(), status = 'unavailable', error = 'the worker stopped' WHERE worker_id = $1)
DELETE FROM workers WHERE id = $1
