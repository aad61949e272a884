-- The index over a long history may take longer than a statement of the service may.
SET LOCAL statement_timeout TO 0;

-- How many exports of a tenant may be begun at a time, for workers, which do not read TENANT_LIMITS: each api writes the whole
-- table at its start. The row '*', which is no tenant's name, is for tenants without a row.
CREATE TABLE running_limits (
    tenant text PRIMARY KEY,
    running integer NOT NULL CHECK (running > 0)
);

-- Requests that tenants may still make: a token bucket each, from which every api takes a block at a time. Not logged, so that a
-- commit does not wait for the disk: after a crash of the server the buckets are full.
CREATE UNLOGGED TABLE request_buckets (
    tenant text PRIMARY KEY,
    tokens double precision NOT NULL,
    -- What the last api got.
    granted double precision NOT NULL,
    filled_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Event streams that are open, of tenants that have a limit of them. Renewed while they are open, so that those of a lost api
-- end, too.
CREATE UNLOGGED TABLE open_streams (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    alive_until timestamptz NOT NULL
);
CREATE INDEX open_streams_of_tenant ON open_streams (tenant);

-- What a tenant has got in the last 24 hours.
CREATE INDEX exports_completed ON exports (tenant, finished_at) INCLUDE (rows, bytes)
    WHERE state IN ('completed', 'expired');

-- Workers find an export that waited for its tenant's limit when the tenant has one begun export less. A trigger, so that no
-- statement that changes a state can leave it out.
CREATE FUNCTION announce_waiting_of_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM polyglot.running_limits) THEN
        INSERT INTO polyglot.outbox (export_id)
        SELECT id FROM polyglot.exports
        WHERE tenant = NEW.tenant AND state = 'pending' AND id <> NEW.id AND ready_at <= polyglot.ledger_now()
        ORDER BY created_at LIMIT 1 FOR KEY SHARE SKIP LOCKED;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER exports_no_longer_begun AFTER UPDATE ON exports
    FOR EACH ROW WHEN (OLD.state IN ('planning', 'running', 'finishing')
                       AND NEW.state NOT IN ('planning', 'running', 'finishing'))
    EXECUTE FUNCTION announce_waiting_of_tenant();
