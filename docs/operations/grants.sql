-- The rights of the service on a server of yours, for psql. Each part is run where its variable is given; both may be run again.
--
-- The source, as the owner of the schema (or a superuser), in the database to export from, once for each schema:
--   psql "$ADMIN_DATABASE_URL" -v ON_ERROR_STOP=1 -v reader=polyglot_reader -v schema=shop -f docs/operations/grants.sql
--   owner=ROLE        who will make further tables there; default: who runs this
--
-- The ledger, as a role that may create schemas and roles, in the ledger's database:
--   psql "$ADMIN_DATABASE_URL" -v ON_ERROR_STOP=1 -v ledger=polyglot_ledger -f docs/operations/grants.sql
--
-- Roles that are not there are made without a password: \password polyglot_reader sets one.

\if :{?reader}
  \if :{?owner}
  \else
    SELECT current_user AS owner \gset
  \endif
  SELECT format('CREATE ROLE %I LOGIN', :'reader') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'reader') \gexec
  SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'reader') \gexec
  -- Before PostgreSQL 15 everybody may create objects in public, the reader among them. Roles of yours that are to do so need
  -- GRANT CREATE ON SCHEMA public.
  REVOKE CREATE ON SCHEMA :"schema" FROM PUBLIC;
  GRANT USAGE ON SCHEMA :"schema" TO :"reader";
  GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"reader";
  -- Tables that the owner makes later. It needs this once for each role that makes tables.
  ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO :"reader";
\endif

\if :{?ledger}
  SELECT format('CREATE ROLE %I LOGIN', :'ledger') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'ledger') \gexec
  SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'ledger') \gexec
  -- Where the role is there and the schema is not, this makes it. The service makes its tables itself.
  SELECT format('CREATE SCHEMA polyglot AUTHORIZATION %I', :'ledger') WHERE to_regnamespace('polyglot') IS NULL \gexec
\endif
