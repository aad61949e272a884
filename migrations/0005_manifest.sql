-- What the finished file holds, written with its completion.
ALTER TABLE exports ADD COLUMN manifest jsonb;
