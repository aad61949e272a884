-- What an attempt has left is looked for several times: a request of a process that died may still be on its way to the
-- store when nothing is found there.
ALTER TABLE uploads ADD COLUMN looks smallint NOT NULL DEFAULT 0;
ALTER TABLE uploads ADD COLUMN look_at timestamptz NOT NULL DEFAULT now();
