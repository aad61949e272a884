-- Every object or multipart upload that an attempt has begun and that no completed export owns yet. The row
-- is written before the first call to the object store and removed with the proof that nothing is left (or
-- that the object became an export's file), so what must be cleaned up is known from here alone.
CREATE TABLE uploads (
    export_id uuid NOT NULL REFERENCES exports ON DELETE CASCADE,
    attempt integer NOT NULL,
    object_key text NOT NULL,
    -- NULL until CreateMultipartUpload has answered; stays NULL for a single PutObject.
    upload_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (export_id, attempt)
);
