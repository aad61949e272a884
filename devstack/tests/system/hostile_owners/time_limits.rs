//! Code that catches its cancellation: it is ended at the time limit all the same.

use std::time::{Duration, Instant};

use polyglot_devstack::wait::wait_until;
use polyglot_test_servers::needs_servers;

use super::{Trial, body};

/// Catches every cancellation for two minutes.
const DEAF: &str = "
    CREATE FUNCTION public.deaf() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $f$
    DECLARE began timestamptz := clock_timestamp();
    BEGIN
        WHILE clock_timestamp() < began + interval '2 minutes' LOOP
            BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN query_canceled THEN NULL; END;
        END LOOP;
        RETURN 'x';
    END $f$;
    CREATE VIEW public.deaf_rows AS SELECT n AS id, CASE WHEN n > 0 THEN public.deaf() END AS v FROM generate_series(1, 3) n
        WHERE n > random() - 1;
    CREATE VIEW public.deaf_plan AS SELECT 1 AS id, 'x'::text AS v WHERE public.deaf() = 'x'";

#[tokio::test]
async fn a_function_that_catches_the_cancellation_ends_at_the_limit() {
    needs_servers!();
    let mut trial = Trial::start().await;
    trial.attack(DEAF).await;
    for dataset in ["deaf_rows", "deaf_plan"] {
        let request = body(dataset, &["id", "v"], ("id", "<=", "1"));
        let began = Instant::now();
        let (status, problem) = trial.preview(&request).await;
        println!("{dataset}: {status} {problem} after {:?}", began.elapsed());
        assert!(matches!(status, 422 | 503), "{dataset}: {problem}");
        assert!(began.elapsed() < Duration::from_secs(10), "{dataset}: {:?}", began.elapsed());
        let query =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND query LIKE '%deaf%'";
        wait_until("no session runs it any more", async || {
            match sqlx::query_scalar::<_, i64>(query).bind(&trial.reader).fetch_one(&trial.admin).await.unwrap() {
                0 => Ok(()),
                count => Err(format!("There are {count}.")),
            }
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(20), "{dataset}: {:?}", began.elapsed());
    }
    // A worker's session ends with the export.
    trial.system.set("EXPORT_TIMEOUT_MS", "5000");
    let id = trial.system.submit_request(&serde_json::json!({
        "format": "csv", "dataset": "deaf_rows", "columns": [{"source": "id", "target": "id"}, {"source": "v", "target": "v"}],
    }))
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    trial.system.delete(&id).await;
    trial.system.wait_until_ended(&id).await;
    trial.nothing_was_gained("a function that catches the cancellation").await;
    trial.end().await;
}
