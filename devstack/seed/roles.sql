-- The two roles of a trial: polyglot_ledger, which owns the schema polyglot and nothing else, and polyglot_reader, which may only
-- read the tables in public. Run by the server's superuser in the service's database, at each start; it may be run again at any
-- time. The settings trial.ledger_password and trial.reader_password have the passwords. docs/operations/grants.sql is the script
-- for a server of one's own.
DO $roles$
DECLARE
    item record;
BEGIN
    FOR item IN SELECT * FROM (VALUES ('polyglot_ledger', current_setting('trial.ledger_password')),
                                      ('polyglot_reader', current_setting('trial.reader_password'))) AS role(name, password)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = item.name) THEN
            EXECUTE format('CREATE ROLE %I', item.name);
        END IF;
        EXECUTE format('ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD %L', item.name, item.password);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), item.name);
    END LOOP;
    -- Before PostgreSQL 15 everybody may create objects in public.
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());

    GRANT USAGE ON SCHEMA public TO polyglot_reader;
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO polyglot_reader;
    -- Tables that are made later. A privilege by default belongs to the role that makes the table.
    FOR item IN SELECT rolname AS name FROM pg_roles WHERE rolsuper LOOP
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public GRANT SELECT ON TABLES TO polyglot_reader', item.name);
    END LOOP;

    IF to_regnamespace('polyglot') IS NULL THEN
        CREATE SCHEMA polyglot AUTHORIZATION polyglot_ledger;
        RETURN;
    END IF;
    -- Versions before had one role for everything, a superuser, which owns what they have made.
    ALTER SCHEMA polyglot OWNER TO polyglot_ledger;
    FOR item IN
        SELECT c.oid::regclass::text AS name, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
        FROM pg_class c
        WHERE c.relnamespace = 'polyglot'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S') AND c.relowner <> 'polyglot_ledger'::regrole
          -- The sequence of a column goes with its table.
          AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d
                                               WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')))
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO polyglot_ledger', item.kind, item.name);
    END LOOP;
    FOR item IN
        SELECT p.oid::regprocedure::text AS name FROM pg_proc p
        WHERE p.pronamespace = 'polyglot'::regnamespace AND p.proowner <> 'polyglot_ledger'::regrole
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO polyglot_ledger', item.name);
    END LOOP;
    FOR item IN
        SELECT t.oid::regtype::text AS name FROM pg_type t
        WHERE t.typnamespace = 'polyglot'::regnamespace AND t.typtype IN ('e', 'd') AND t.typowner <> 'polyglot_ledger'::regrole
    LOOP
        EXECUTE format('ALTER TYPE %s OWNER TO polyglot_ledger', item.name);
    END LOOP;
END
$roles$;
