-- When a worker may take the work: at once what was accepted or given back, after a pause what failed, after the
-- lease what is held. Workers that no message reaches look here.
ALTER TABLE exports ADD COLUMN ready_at timestamptz NOT NULL DEFAULT now();

CREATE INDEX exports_ready ON exports (ready_at) WHERE state IN ('pending', 'planning', 'running', 'finishing');
