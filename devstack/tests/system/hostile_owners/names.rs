//! Functions, operators and casts of the attacker that the service's own statements could mean by mistake.

use polyglot_test_servers::needs_servers;

use super::{Trial, body};

#[tokio::test]
async fn functions_named_like_those_of_the_catalog_are_not_called() {
    needs_servers!();
    let mut trial = Trial::start().await;
    // The first ones have the signatures of PostgreSQL's own, the others fit better what they are called with.
    for (signature, result, value) in [
        ("has_table_privilege(oid, text)", "boolean", "true"),
        ("has_schema_privilege(oid, text)", "boolean", "true"),
        ("pg_table_size(regclass)", "bigint", "1"),
        ("pg_relation_size(regclass)", "bigint", "1"),
        ("format_type(oid, integer)", "text", "'text'"),
        ("to_regclass(text)", "regclass", "NULL::regclass"),
        ("current_database()", "name", "'x'::name"),
        ("pg_backend_pid()", "integer", "1"),
        ("set_config(text, text, boolean)", "text", "'x'"),
        ("pg_postmaster_start_time()", "timestamptz", "'2000-01-01'::timestamptz"),
        ("pg_export_snapshot()", "text", "'x'"),
        ("pg_terminate_backend(integer)", "boolean", "true"),
        ("left(varchar, integer)", "text", "'x'"),
        ("octet_length(varchar)", "integer", "1"),
        ("ascii(text)", "integer", "1"),
    ] {
        trial
            .attack(&format!(
                "CREATE FUNCTION public.{signature} RETURNS {result} LANGUAGE plpgsql AS
                 $f$ BEGIN PERFORM public.payload(); RETURN {value}; END $f$"
            ))
            .await;
    }
    let file = trial.survives("functions", &body("records", &["id", "name"], ("id", "<=", "3"))).await.unwrap();
    assert_eq!(file.lines().count(), 4, "{file}");
    trial.end().await;
}

#[tokio::test]
async fn operators_of_the_attacker_are_not_used() {
    needs_servers!();
    let mut trial = Trial::start().await;
    trial
        .attack(
            "CREATE FUNCTION public.never(varchar, varchar) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
             $f$ BEGIN PERFORM public.payload(); RETURN false; END $f$;
             CREATE FUNCTION public.never(bigint, bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
             $f$ BEGIN PERFORM public.payload(); RETURN false; END $f$",
        )
        .await;
    for operator in ["=", "<>", "<", "<=", ">", ">=", "~~", "~~*", "!~~"] {
        for sql_type in ["varchar", "bigint"] {
            trial
                .attack(&format!(
                    "CREATE OPERATOR public.{operator} (FUNCTION = public.never, LEFTARG = {sql_type}, RIGHTARG = {sql_type})"
                ))
                .await;
        }
    }
    for (column, op, value) in [
        ("name", "!=", "nobody"),
        ("name", ">=", ""),
        ("name", "like", "%"),
        ("name", "ilike", "%"),
        ("id", "<=", "100"),
        ("id", "!=", "1000"),
    ] {
        let file = trial.outcome(op, &body("records", &["id"], (column, op, value))).await.unwrap();
        assert_eq!(file.lines().count(), 101, "{column} {op}: {file}");
    }
    let file = trial.survives("in", &body("records", &["id"], ("id", "in", "7"))).await.unwrap();
    assert_eq!(file, "id\n7\n");
    trial.end().await;
}

#[tokio::test]
async fn text_is_what_the_output_function_prints_and_not_what_a_cast_makes() {
    needs_servers!();
    let mut trial = Trial::start().await;
    trial
        .attack(
            "CREATE TYPE public.mood AS ENUM ('good', 'bad');
             CREATE TYPE public.pair AS (a integer, b text);
             CREATE FUNCTION public.lie(public.mood) RETURNS text LANGUAGE plpgsql AS
             $f$ BEGIN RETURN public.payload(); END $f$;
             CREATE FUNCTION public.lie(public.pair) RETURNS text LANGUAGE plpgsql AS
             $f$ BEGIN RETURN public.payload(); END $f$;
             CREATE CAST (public.mood AS text) WITH FUNCTION public.lie(public.mood) AS ASSIGNMENT;
             CREATE CAST (public.pair AS text) WITH FUNCTION public.lie(public.pair) AS IMPLICIT;
             CREATE TABLE public.moods (id integer PRIMARY KEY, m public.mood, p public.pair, ms public.mood[]);
             INSERT INTO public.moods VALUES (1, 'good', (1, 'x'), '{good,bad}'), (2, 'bad', NULL, NULL)",
        )
        .await;
    let request = body("moods", &["id", "m", "p", "ms"], ("m", "in", "good"));
    let file = trial.survives("casts", &request).await.unwrap();
    assert_eq!(file, "id,m,p,ms\n1,good,\"(1,x)\",\"{good,bad}\"\n");
    let (status, preview) = trial.preview(&request).await;
    assert_eq!(
        (status, &preview["rows"]),
        (200, &serde_json::json!([["1", "good", "\"(1,x)\"", "\"{good,bad}\""]])),
        "{preview}"
    );
    // With an implicit cast the attacker's function does run for LIKE, which an enum does not have: as the service's role, and in a
    // session of its own.
    trial
        .attack(
            "CREATE TYPE public.other AS ENUM ('good', 'bad');
             CREATE FUNCTION public.lie(public.other) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
             $f$ BEGIN RETURN public.payload(); END $f$;
             CREATE CAST (public.other AS text) WITH FUNCTION public.lie(public.other) AS IMPLICIT;
             CREATE TABLE public.others (id integer PRIMARY KEY, o public.other); INSERT INTO public.others VALUES (1, 'good')",
        )
        .await;
    let file = trial.survives("implicit cast", &body("others", &["id", "o"], ("o", "like", "nothing"))).await.unwrap();
    assert_eq!(file, "id,o\n1,good\n");
    trial.end().await;
}
