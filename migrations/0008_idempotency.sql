-- What a client's Idempotency-Key stands for. The row is written before the request is looked at, so that a second
-- request with the key finds it, and gets its export in the transaction that accepts the export.
CREATE TABLE idempotency_keys (
    tenant text NOT NULL,
    key text NOT NULL,
    -- SHA-256 of the body.
    fingerprint bytea NOT NULL,
    -- Tells the request that works under the key from one that was given up for dead.
    holder uuid NOT NULL,
    -- NULL while the first request is being worked on.
    export_id uuid REFERENCES exports ON DELETE CASCADE,
    -- The rest of the first answer: the state it told, and whether the export was there already.
    state text,
    joined boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
-- For the deletion of an export.
CREATE INDEX idempotency_keys_export ON idempotency_keys (export_id);

-- Where a request that wants to join an identical one looks.
CREATE INDEX exports_in_flight ON exports (tenant, dataset)
    WHERE state IN ('pending', 'planning', 'running', 'finishing');
