-- The index over a long history may take longer than a statement of the service may.
SET LOCAL statement_timeout TO 0;

-- The keys by which clients say who they are. Only the hash of a key's secret is stored: the secret has 256 random bits, so a
-- hash without a salt cannot be searched.
CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    tenant text NOT NULL,
    scopes text[] NOT NULL,
    secret_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT ledger_now(),
    -- NULL: it does not expire.
    expires_at timestamptz,
    revoked_at timestamptz,
    -- The key whose place this one takes.
    rotated_from uuid
);

-- The page's sign-ins. A session has the rights of its key and ends with it.
CREATE TABLE sessions (
    token_sha256 bytea PRIMARY KEY,
    key_id uuid NOT NULL REFERENCES api_keys ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT ledger_now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE INDEX sessions_of_key ON sessions (key_id);

-- Of an export whose rows were chosen by more than the tenant: the one of its callers who sees it. NULL: all of them.
ALTER TABLE exports ADD COLUMN owner text;

-- A tenant's list, newest first.
CREATE INDEX exports_of_tenant ON exports (tenant, id);
