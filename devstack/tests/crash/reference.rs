//! The file that an export has to come to: what the same request gives when nothing disturbs it, which for one of them
//! is checked against PostgreSQL's own `COPY`.

use std::sync::Arc;

use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::remains;
use crate::servers::Servers;
use crate::service::PATIENCE;
use crate::system::System;

/// Runs each request once, undisturbed.
pub(crate) async fn files(servers: &Arc<Servers>, requests: &[Value]) -> Vec<Vec<u8>> {
    let mut system = System::start(servers, &[("WORKER_SLOTS", "2")]).await;
    system.add_worker();
    let mut ids = Vec::new();
    for request in requests {
        ids.push(system.door.submit(request).await);
    }
    let (mut files, mut keys) = (Vec::new(), Vec::new());
    for id in &ids {
        let record = system.ended(id, PATIENCE).await;
        assert_eq!((record.state.as_str(), record.attempt), ("completed", 1), "{record:?}");
        keys.extend(record.object_key);
        files.push(system.door.download(id).await);
    }
    remains::nothing_but(&mut system, &keys).await;
    remains::remove(system).await;
    files
}

/// PostgreSQL's own CSV of the first `rows` rows, in the notation that the service promises for timestamps.
pub(crate) async fn copied(servers: &Servers, rows: u64) -> Vec<u8> {
    let mut connection = PgConnection::connect(&servers.source_url("postgres")).await.unwrap();
    sqlx::raw_sql("SET timezone TO 'UTC'").execute(&mut connection).await.unwrap();
    let sql = format!(
        "COPY (SELECT id, replace(replace(created_at::text, ' ', 'T'), '+00', 'Z') AS created_at, name, value, metadata
               FROM public.records WHERE id <= {rows} ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"
    );
    let stream = connection.copy_out_raw(&sql).await.unwrap();
    stream
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
        .unwrap()
}
