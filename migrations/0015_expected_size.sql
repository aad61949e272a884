-- The export is one stream that ends soon, as far as the api can tell by the size of its relation. Workers look for these apart
-- from the others that wait, so that they pass those whose planning takes longer.
ALTER TABLE exports ADD COLUMN is_small boolean NOT NULL DEFAULT false;
CREATE INDEX exports_small_waiting ON exports (tenant, created_at, id) WHERE state = 'pending' AND is_small;
