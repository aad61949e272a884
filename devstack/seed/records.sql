-- The sample table `public.records` and its rows. One file for two readers:
--   psql:      PGOPTIONS='-c seed.rows=1000000' psql -v ON_ERROR_STOP=1 -f records.sql
--   devstack:  sends one section after the other; a section begins at a line "-- step: …" and is what is printed.
-- So it holds plain SQL only, no psql commands.
--
-- Rows are a pure function of their number (hashes, never random()), so two seeds of the same size are equal, and a
-- larger one begins with the smaller one. A table that holds a row is left as it is, whatever seed.rows says.

-- step: settings
SET client_min_messages = notice;
SET timezone = 'UTC';
SET synchronous_commit = off;
SET jit = off;
-- Else the planner copies the arrays below into the plan in a form whose elements are found by walking over all before them.
SET plan_cache_mode = force_generic_plan;

-- step: fill
DO $seed$
DECLARE
    wanted bigint := coalesce(nullif(current_setting('seed.rows', true), ''), '1000000')::bigint;
    fresh  boolean;
    used   boolean;
    -- Pieces of the metadata's text, made once, because joining eight pieces a row is quicker than thirty.
    -- The number of each is a power of two, so that bits of a hash choose.
    heads  text[] := (
        SELECT array_agg(format('{"category":"%s","region":"%s","tags":[%s],"active":%s,"amount":', category, region, tags, active)
                         ORDER BY c, r, t, active)
        FROM unnest(ARRAY['books','garden','music','tools','toys','sports','food','health']) WITH ORDINALITY AS category(category, c),
             unnest(ARRAY['eu-1','eu-2','us-1','us-2','ap-1','ap-2','sa-1','af-1']) WITH ORDINALITY AS region(region, r),
             unnest(ARRAY['"new","sale"','"vip","b2b"','"a","b","c","d"','"größe","xl"','"x","y\"z"','"eco","late"',
                          '"new","hot","top"','"eco","fair"']) WITH ORDINALITY AS tags(tags, t),
             unnest(ARRAY['false','true']) AS active(active));
    cents  text[] := (SELECT array_agg(format('.%s,"address":{"street":"', 10 + n) ORDER BY n) FROM generate_series(0, 63) AS n);
    places text[] := (
        SELECT array_agg(format(' %s","city":"%s","zip":"', street, city) ORDER BY s, c)
        FROM unnest(ARRAY['Oak St','Elm Rd','Bay Av','Rue A','Wall','Via Po','High St','Kai']) WITH ORDINALITY AS street(street, s),
             unnest(ARRAY['Berlin','Zürich','Lyon','Oslo','Rome','Kyoto','Austin','Cairo']) WITH ORDINALITY AS city(city, c));
    lats   text[] := (SELECT array_agg(format('","geo":{"lat":%s,"lon":', round(-90 + n * 180 / 4096.0, 2)) ORDER BY n) FROM generate_series(0, 4095) AS n);
    lons   text[] := (SELECT array_agg(format('%s}}}', round(-180 + n * 360 / 4096.0, 2)) ORDER BY n) FROM generate_series(0, 4095) AS n);
BEGIN
    IF wanted < 0 THEN
        RAISE EXCEPTION 'seed.rows must be 0 or more, not %', wanted;
    END IF;

    -- Two seeders at once would both find the table empty: the second waits here and then finds it filled.
    PERFORM pg_advisory_xact_lock(7316590126337001);
    fresh := to_regclass('public.records') IS NULL;

    IF fresh THEN
        -- Created in the transaction that fills it, and without its primary key until the end: with wal_level=minimal
        -- the rows then skip the WAL, and the index is built by one sort instead of ten million insertions.
        CREATE TABLE public.records (
            id         bigserial     NOT NULL,
            created_at timestamptz   NOT NULL,
            name       varchar(255)  NOT NULL,
            value      decimal(18,4) NOT NULL,
            metadata   jsonb         NOT NULL
        );
    END IF;

    EXECUTE 'SELECT EXISTS (SELECT FROM public.records)' INTO used;
    IF used THEN
        RAISE NOTICE 'public.records holds rows already: nothing is seeded';
        RETURN;
    END IF;

    IF wanted > 0 THEN
        RAISE NOTICE 'filling public.records with % rows', wanted;
    END IF;
    INSERT INTO public.records (id, created_at, name, value, metadata)
    SELECT
        n,
        -- three years, to the microsecond
        timestamptz '2023-01-01 00:00:00+00' + ((a & 9223372036854775807) % 94608000000000) * interval '1 microsecond',
        -- one name in four holds something that a format has to escape
        CASE (a >> 8) & 63
            WHEN 0 THEN first || ', ' || last || ' & Sons'
            WHEN 1 THEN last || ', ' || first
            WHEN 2 THEN last || ', ' || first || ', Jr.'
            WHEN 3 THEN first || ' "' || left(last, 3) || '" ' || last
            WHEN 4 THEN 'the "' || last || '"'
            WHEN 5 THEN first || ' Müller-' || last
            WHEN 6 THEN 'Jürgen ' || last || ' ß'
            WHEN 7 THEN 'Zoë Łukasz ' || last
            WHEN 8 THEN first || ' 🚀 ' || last
            WHEN 9 THEN '東京 ' || last || ' 👩‍🔬'
            WHEN 10 THEN first || E'\n' || last
            WHEN 11 THEN first || E'\r\n\t' || last
            WHEN 12 THEN first || ' <&> ' || last
            WHEN 13 THEN '<b>' || last || '</b> &amp; ]]>'
            WHEN 14 THEN last || E' O\'' || first || ' \'
            WHEN 15 THEN '=' || first || '+' || last
            ELSE first || ' ' || last || ' ' || (n % 9973)::text
        END,
        -- both signs, from fractions of a cent to 14 digits before the point
        (b % (ARRAY[10000, 1000000, 100000000, 10000000000, 1000000000000, 1000000000000000000])[1 + ((a >> 3) & 7) % 6])::numeric
            * 0.0001,
        (
            heads[1 + ((b >> 4) & 1023)] || ((b >> 14) & 4095)::text || cents[1 + ((b >> 30) & 63)]
            || (1 + (b >> 26 & 127))::text || places[1 + ((a >> 14) & 63)] || (10000 + ((a >> 20) & 65535))::text
            || lats[1 + ((a >> 36) & 4095)] || lons[1 + ((b >> 36) & 4095)]
        )::jsonb
    FROM (
        SELECT
            n, a, b,
            (ARRAY['Ada','Ben','Cleo','Dan','Eva','Finn','Gia','Hugo','Ida','Jon','Kim','Lea','Max','Nora','Otto','Pia'])[1 + (a & 15)] AS first,
            (ARRAY['Abel','Bauer','Costa','Dietz','Evans','Fuchs','Gomez','Haas','Ito','Jansen','Klein','Lopez','Moreau','Novak','Olsen','Price'])[1 + ((a >> 4) & 15)] AS last
        FROM (
            SELECT n, hashint8extended(n, 20230101) AS a, hashint8extended(n, 77) AS b
            -- in the target list generate_series streams; in FROM it would first write its numbers to a temporary file
            FROM (SELECT generate_series(1, wanted) AS n) AS numbers
            OFFSET 0 -- keeps the planner from computing a hash again wherever it is used
        ) AS hashed
        OFFSET 0
    ) AS people;

    IF fresh THEN
        RAISE NOTICE 'adding the primary key';
        ALTER TABLE public.records ADD PRIMARY KEY (id);
    END IF;
    IF wanted > 0 THEN
        PERFORM setval(pg_get_serial_sequence('public.records', 'id'), wanted);
    END IF;
END
$seed$;

-- step: statistics
VACUUM (ANALYZE) public.records;
