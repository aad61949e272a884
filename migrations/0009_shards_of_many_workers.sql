-- An export that is cut is done shard by shard, by any workers. Shard 0 is not a piece of it: who holds it plans the
-- export, reads all of it where it is not cut, or finishes it.
ALTER TABLE shards DROP CONSTRAINT shards_number_check;
DELETE FROM shards USING exports
WHERE exports.id = shards.export_id AND exports.state NOT IN ('pending', 'planning', 'running', 'finishing');
UPDATE shards SET number = 0 WHERE number = 1;
ALTER TABLE shards ADD CONSTRAINT shards_number_check CHECK (number BETWEEN 0 AND 10000);
-- CRC-32 of the stored bytes is crc32; this one is of the bytes before gzip, for the trailer.
ALTER TABLE shards ADD COLUMN raw_crc32 bigint;
ALTER TABLE shards DROP COLUMN checksum;
-- Workers of earlier versions would take shard 1 for the whole export; by the old name they find nothing to take.
ALTER TABLE shards RENAME COLUMN lease_until TO leased_until;
-- What was written as something else.
ALTER TABLE shards ADD COLUMN replaced jsonb;

DROP INDEX shards_leased;
CREATE INDEX shards_leased ON shards (export_id, leased_until) WHERE state = 'leased';
CREATE INDEX shards_free ON shards (export_id, number) WHERE state = 'free';

-- The column "plan" holds what an attempt that is cut has decided; without it the attempt is one stream, or not planned.
ALTER TABLE exports
    DROP COLUMN snapshot,
    ADD COLUMN shards integer NOT NULL DEFAULT 0,
    ADD COLUMN shards_done integer NOT NULL DEFAULT 0,
    -- Shards that may be worked on at a time.
    ADD COLUMN parallelism integer,
    -- Why the attempt is one stream.
    ADD COLUMN uncut text,
    -- How often shards came out too small, each time after which they are made larger.
    ADD COLUMN coarser smallint NOT NULL DEFAULT 0,
    -- An old snapshot holds back vacuum; behind this it is given up.
    ADD COLUMN snapshot_until timestamptz,
    -- After a failure of a shard no other is begun until then.
    ADD COLUMN paused_until timestamptz;

UPDATE exports SET shards = 1, shards_done = 1 WHERE state IN ('completed', 'expired');

-- The key of the multipart upload, where the object is one of several under object_key.
ALTER TABLE uploads ADD COLUMN upload_key text;

-- Processes that hold an attempt's snapshot open, under the names by which others can import it.
CREATE TABLE keepers (
    export_id uuid NOT NULL REFERENCES exports ON DELETE CASCADE,
    attempt integer NOT NULL,
    owner text NOT NULL,
    snapshot text NOT NULL,
    alive_until timestamptz NOT NULL,
    PRIMARY KEY (export_id, attempt, owner)
);
