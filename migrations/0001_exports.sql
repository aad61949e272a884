-- One row an export: what was asked, how far it is, how it ended.
CREATE TABLE exports (
    -- UUIDv7: sorts by creation, so the list needs no other index.
    id uuid PRIMARY KEY,
    tenant text NOT NULL DEFAULT 'default',
    request jsonb NOT NULL,
    dataset text NOT NULL,
    format text NOT NULL,
    compression text,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN
        ('pending', 'planning', 'running', 'finishing', 'completed', 'expired', 'failed', 'cancelled')),
    -- What the planner decided, and the exported snapshot every shard reads under.
    plan jsonb,
    snapshot text,
    -- Counts starts under a new snapshot and a new upload; part of the object key.
    attempt integer NOT NULL DEFAULT 0,
    -- Counts attempts that ended in a transient failure or a lost lease; a hand-back on shutdown is not one.
    failures integer NOT NULL DEFAULT 0,
    rows_estimate bigint,
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    -- Set while the finished object exists, NULL again once it is deleted.
    object_key text,
    etag text,
    -- Words for the user (error) and for the operator (error_detail).
    error_code text,
    error text,
    error_detail text,
    cancel_requested boolean NOT NULL DEFAULT false,
    -- Peak resident set of the worker process during the last attempt.
    peak_memory_bytes bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    deadline_at timestamptz,
    finished_at timestamptz,
    expires_at timestamptz,
    -- When the sweeper publishes another token unless a worker has claimed the work by then.
    token_due_at timestamptz
);

-- The sweeper looks only at these.
CREATE INDEX exports_active ON exports (token_due_at)
    WHERE state IN ('pending', 'planning', 'running', 'finishing');
CREATE INDEX exports_expiring ON exports (expires_at) WHERE state = 'completed';
CREATE INDEX exports_deletable ON exports (id) WHERE state = 'expired' AND object_key IS NOT NULL;
CREATE INDEX exports_by_state ON exports (state, id DESC);
