-- Every state that an export has been in, in order, for clients that follow it and come back after a lost connection. The
-- numbers of one export grow in the order of its commits, because they are given out under the lock on its row; those of
-- different exports may become visible in another order than they grow.
CREATE TABLE state_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    export_id uuid NOT NULL REFERENCES exports ON DELETE CASCADE,
    state text NOT NULL,
    attempt integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX state_changes_of ON state_changes (export_id, id);

-- A trigger, so that no statement that changes a state can leave it out. It does not NOTIFY: commits that do take turns
-- in the whole database, each waiting for the disk, so processes tell of changes apart from them.
CREATE FUNCTION note_state_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO polyglot.state_changes (export_id, state, attempt) VALUES (NEW.id, NEW.state, NEW.attempt);
    RETURN NULL;
END
$$;

CREATE TRIGGER exports_created AFTER INSERT ON exports
    FOR EACH ROW EXECUTE FUNCTION note_state_change();
CREATE TRIGGER exports_changed AFTER UPDATE ON exports
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.attempt IS DISTINCT FROM NEW.attempt)
    EXECUTE FUNCTION note_state_change();
