//! The expected file of an export: what the same request gives when nothing disturbs it, which for one of them is checked
//! against PostgreSQL's own `COPY`.

use std::process::Command;
use std::sync::Arc;

use futures_util::TryStreamExt;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_kit::DEADLINE;
use serde_json::Value;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::cleanup_checks;
use crate::servers::Servers;
use crate::system::System;

/// Runs each request once, undisturbed.
pub(crate) async fn files(servers: &Arc<Servers>, requests: &[Value]) -> Vec<Vec<u8>> {
    let mut system = System::start(servers, &[("WORKER_SLOTS", "2")]).await;
    system.add_worker();
    let mut ids = Vec::new();
    for request in requests {
        ids.push(system.submit_request(request).await);
    }
    let (mut files, mut keys) = (Vec::new(), Vec::new());
    for id in &ids {
        let record = system.wait_for_end_in_ledger(id, DEADLINE).await;
        assert_eq!((record.state.as_str(), record.attempt), ("completed", 1), "{record:?}");
        keys.extend(record.object_key);
        files.push(system.download(id).await);
    }
    cleanup_checks::assert_nothing_remains_but(&mut system, &keys).await;
    cleanup_checks::remove(system).await;
    files
}

/// PostgreSQL's own CSV of the first `rows` rows, in the notation that the service promises for timestamps.
pub(crate) async fn csv_by_copy(servers: &Servers, rows: u64) -> Vec<u8> {
    let mut all = Vec::new();
    copy(servers, rows, |piece| all.extend_from_slice(piece)).await;
    all
}

/// Length and CRC-32 of that CSV, where it is too large for memory.
pub(crate) async fn length_and_crc32_by_copy(servers: &Servers, rows: u64) -> (u64, u32) {
    let (mut length, mut crc) = (0, crc32fast::Hasher::new());
    let take = |piece: &[u8]| {
        length += u64::try_from(piece.len()).unwrap();
        crc.update(piece);
    };
    copy(servers, rows, take).await;
    (length, crc.finalize())
}

async fn copy(servers: &Servers, rows: u64, mut take: impl FnMut(&[u8])) {
    let mut connection = PgConnection::connect(&servers.source_url("postgres")).await.unwrap();
    sqlx::raw_sql("SET timezone TO 'UTC'").execute(&mut connection).await.unwrap();
    let sql = format!(
        "COPY (SELECT id, replace(replace(created_at::text, ' ', 'T'), '+00', 'Z') AS created_at, name, value, metadata
               FROM public.records WHERE id <= {rows} ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"
    );
    let mut stream = connection.copy_out_raw(&sql).await.unwrap();
    while let Some(piece) = stream.try_next().await.unwrap() {
        take(&piece);
    }
}

/// The file without its gzip, by the program of that name.
pub(crate) fn gunzip(file: &[u8]) -> Vec<u8> {
    let folder = ScratchDir::new("gunzip").unwrap();
    let path = folder.path().join("file.gz");
    std::fs::write(&path, file).unwrap();
    let output = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
    assert!(output.status.success(), "gzip: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
