-- All statements of the ledger take their time from here, so that a test can run them under a clock of its own. The server
-- inlines the function, so it costs nothing.
CREATE FUNCTION ledger_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()';
ALTER TABLE exports
    ALTER COLUMN created_at SET DEFAULT ledger_now(),
    ALTER COLUMN ready_at SET DEFAULT ledger_now(),
    -- The export is sharded, as far as is known, so that it keeps a snapshot open: it may begin only while fewer exports
    -- than MAX_OPEN_SNAPSHOTS have a place.
    ADD COLUMN needs_place boolean NOT NULL DEFAULT false,
    -- Counts only in the states planning and running: after them the snapshot is not needed any more.
    ADD COLUMN has_place boolean NOT NULL DEFAULT false,
    -- What is left until the deadline, which stands still while the export waits for a place.
    ADD COLUMN deadline_left interval;
-- Exports that were sharded before this migration have their snapshots open already.
UPDATE exports SET needs_place = true, has_place = true WHERE state IN ('planning', 'running') AND plan IS NOT NULL;
CREATE INDEX exports_with_place ON exports (id) WHERE has_place AND state IN ('planning', 'running');
-- The oldest export of each tenant that waits, and those that wait for a place apart from the others. By creation and not by
-- id: ordered by id, the planner could take the primary key, which has every export that there ever was.
CREATE INDEX exports_waiting ON exports (tenant, needs_place, created_at, id) WHERE state = 'pending';
CREATE INDEX exports_waiting_for_place ON exports (created_at) WHERE state = 'pending' AND needs_place;
-- Begun exports, and how many of them each tenant has.
CREATE INDEX exports_begun ON exports (tenant, ready_at) WHERE state IN ('planning', 'running', 'finishing');
