-- Where an export comes from: the request's id, as log lines have it, and the place in a trace (W3C Trace Context) under
-- which whatever is done for the export is shown. Their lengths are checked before they are stored.
ALTER TABLE exports
    ADD COLUMN request_id text,
    ADD COLUMN trace_parent text,
    ADD COLUMN trace_state text;
