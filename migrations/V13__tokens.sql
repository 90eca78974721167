-- Bearer tokens of HTTP: what a holder may ask for, how long, and under whose name. Only a hash is kept.

CREATE TABLE tokens (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL,
    hash         bytea NOT NULL UNIQUE,
    scopes       text[] NOT NULL,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    revoked_by   text
);
COMMENT ON TABLE tokens IS 'Who may call over HTTP: SELECT * FROM create_token(name, scopes). name is the actor of what the holder does.';
COMMENT ON COLUMN tokens.hash IS 'SHA-256 of the token, which has more randomness than anybody guesses.';
COMMENT ON COLUMN tokens.scopes IS 'read, submit, review, admin; admin has all of them.';
COMMENT ON COLUMN tokens.last_used_at IS 'To the minute.';

-- A new token, which is told this once.
CREATE FUNCTION create_token(name text, scopes text[], valid interval DEFAULT interval '90 days',
                             actor text DEFAULT session_user)
RETURNS TABLE (id bigint, token text, expires_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted text[] := ARRAY(SELECT DISTINCT s FROM unnest(create_token.scopes) s ORDER BY s);
    odd text := (SELECT min(s) FROM unnest(wanted) s WHERE s NOT IN ('read', 'submit', 'review', 'admin'));
BEGIN
    IF create_token.name IS NULL OR create_token.name !~ '\S' OR octet_length(create_token.name) > 200
       OR create_token.name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'a token needs a name of 1 to 200 bytes'
            USING ERRCODE = 'check_violation',
                  HINT = 'Name whoever holds it: it stands as the actor of what they do.';
    END IF;
    IF odd IS NOT NULL OR wanted = '{}' OR array_position(create_token.scopes, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'a token has scopes of read, submit, review and admin, not %', coalesce('"' || odd || '"', 'none')
            USING ERRCODE = 'check_violation', HINT = 'admin has all of them; most programs need read and submit.';
    END IF;
    IF valid IS NULL OR valid <= interval '0' OR valid > interval '10 years' THEN
        RAISE EXCEPTION 'a token is valid for more than nothing and at most ten years'
            USING ERRCODE = 'check_violation', HINT = 'The default is 90 days.';
    END IF;
    token := 'dt_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
    expires_at := now() + valid;
    INSERT INTO tokens (name, hash, scopes, created_by, expires_at)
    VALUES (create_token.name, sha256(convert_to(token, 'UTF8')), wanted, acting_as(create_token.actor),
            create_token.expires_at)
    RETURNING tokens.id INTO id;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (acting_as(create_token.actor), 'token.create', 'token ' || create_token.id,
            jsonb_build_object('name', create_token.name, 'scopes', wanted, 'expires_at', create_token.expires_at));
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION create_token IS 'The token is told once; only its hash is kept.';

-- End a token now. Says whether it still was one.
CREATE FUNCTION revoke_token(wanted bigint, actor text DEFAULT session_user) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    t tokens%ROWTYPE;
BEGIN
    SELECT * INTO t FROM tokens x WHERE x.id = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no token %', wanted USING ERRCODE = 'no_data_found';
    END IF;
    IF t.revoked_at IS NOT NULL THEN
        RETURN false;
    END IF;
    UPDATE tokens x SET revoked_at = now(), revoked_by = acting_as(actor) WHERE x.id = wanted;
    INSERT INTO audit_log (actor, action, subject, detail)
    VALUES (acting_as(actor), 'token.revoke', 'token ' || wanted, jsonb_build_object('name', t.name));
    RETURN true;
END $$;

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname IN ('create_token', 'revoke_token')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
