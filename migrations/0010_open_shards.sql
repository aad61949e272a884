-- How far an export that is cut has come is counted from its shards, and its own row changes rarely: a snapshot of the
-- database, which the export itself may hold for hours, keeps every version of a row, and each look goes over all of them.
ALTER TABLE exports
    -- Every shard up to this one is committed; as of a moment ago, so others may be, but none is in front of it.
    ADD COLUMN committed_to integer NOT NULL DEFAULT 0;

-- The first behind committed_to are looked for, never all.
DROP INDEX shards_leased;
CREATE INDEX shards_leased ON shards (export_id, number) WHERE state = 'leased';
