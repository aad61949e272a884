-- One row a piece of an export that one worker can claim, do and commit. An export that is read as one
-- stream has exactly one shard, number 1, without bounds.
CREATE TABLE shards (
    export_id uuid NOT NULL REFERENCES exports ON DELETE CASCADE,
    number integer NOT NULL CHECK (number BETWEEN 1 AND 10000),
    bounds jsonb,
    state text NOT NULL DEFAULT 'free' CHECK (state IN ('free', 'leased', 'committed')),
    lease_owner text,
    lease_until timestamptz,
    -- Grows with every claim. A statement that changes a claim names the fence it was given, so a worker
    -- that lost its lease while it slept changes nothing.
    fence bigint NOT NULL DEFAULT 0,
    rows bigint,
    bytes bigint,
    -- Length and CRC-32 before compression: what a gzip trailer is combined from.
    raw_bytes bigint,
    crc32 bigint,
    etag text,
    checksum text,
    row_groups bytea,
    PRIMARY KEY (export_id, number),
    CHECK ((state = 'leased') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL))
);

CREATE INDEX shards_leased ON shards (lease_until) WHERE state = 'leased';
