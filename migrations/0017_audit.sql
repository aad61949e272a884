-- What was done with the service, by whom and from where. Rows are added and, when they are old, deleted; nothing changes them.
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT ledger_now(),
    action text NOT NULL,
    tenant text,
    caller text,
    address text,
    request_id text,
    export_id uuid,
    dataset text,
    rows bigint,
    bytes bigint,
    -- Tells whether two requests had the same filters, and nothing of their values to whoever does not have the key.
    filters_hash text,
    detail text
);
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_of_tenant ON audit (tenant, id);

CREATE FUNCTION refuse_to_change_audit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'rows of the audit are not changed'; END $$;
CREATE TRIGGER audit_rows_stay BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_to_change_audit();
CREATE TRIGGER audit_stays BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit();

-- The key of the hashes of filters, made once: 244 random bits.
CREATE TABLE audit_key (secret bytea NOT NULL);
CREATE UNIQUE INDEX audit_key_is_one ON audit_key ((true));
INSERT INTO audit_key (secret)
VALUES (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
