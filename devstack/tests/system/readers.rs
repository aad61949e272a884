//! Readers and programs that fetch a file by its link, over both deliveries and from one row up; and the Python client of the
//! README against exports that are slow, fail or are cancelled.

use std::path::PathBuf;

use polyglot_test_kit::{Setup, System, export_request, first_rows, python_command, sample_request, wait_until};
use polyglot_test_servers::needs_servers;
use serde_json::Value;

use crate::python::run_script;

#[tokio::test]
async fn every_reader_gets_all_rows_over_both_deliveries() {
    needs_servers!();
    let system = System::with_rows(30_000).await;
    for (format, compression) in
        [("parquet", None), ("csv", None), ("csv", Some("gzip")), ("jsonl", None), ("arrow", None)]
    {
        for rows in [1, 3, 30_000] {
            let id = system.submit_request(&first_rows(sample_request(format, compression), rows)).await;
            system.wait_until_completed(&id).await;
            for delivery in ["redirect", "proxy"] {
                let folder = system.file(&format!("{format}-{}-{rows}-{delivery}", compression.unwrap_or("plain")));
                std::fs::create_dir_all(&folder).unwrap();
                let url = system.url(&format!("/exports/{id}/download?delivery={delivery}"));
                let found = run_script(
                    "read_links.py",
                    [format, compression.unwrap_or("-"), &url, &rows.to_string(), folder.to_str().unwrap()],
                );
                println!("{format} {rows} {delivery}: {}", found.trim());
            }
        }
    }
}

/// The client as a user copies it from the README.
fn client(folder: &std::path::Path) -> PathBuf {
    let readme = include_str!("../../../README.md");
    let program = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a Python block");
    let path = folder.join("client.py");
    std::fs::write(&path, program).unwrap();
    path
}

/// Starts the client for a request; its file is `out` in the folder.
fn start_client(folder: &std::path::Path, request: &Value, api: &str) -> std::process::Child {
    let call = format!("from client import export; export({request}, 'out', api='{api}')");
    python_command()
        .args(["-c", &call])
        .current_dir(folder)
        .env("API_KEY", "not looked at")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("Python starts")
}

/// Waits for the client, and returns whether it has succeeded and what it has said.
async fn ended(client: std::process::Child) -> (bool, String) {
    let output = tokio::task::spawn_blocking(|| client.wait_with_output()).await.unwrap().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn the_client_of_the_readme_does_the_right_thing_whatever_becomes_of_the_export() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(1000, &[])).await;
    system.wait_until_ready().await;
    let folder = system.file("client");
    std::fs::create_dir_all(&folder).unwrap();
    client(&folder);
    let (api, out) = (system.url(""), folder.join("out"));
    let newest = async || -> String {
        let list: Value = system.get("/exports?limit=1").await.json().await.unwrap();
        list["exports"][0]["exportId"].as_str().unwrap_or_default().to_owned()
    };

    // Nobody works on it yet: it is cancelled while the client waits.
    let waiting = start_client(&folder, &sample_request("csv", None), &api);
    let id = wait_until("the export is there", async || Some(newest().await).filter(|id| !id.is_empty())).await;
    system.delete(&id).await;
    let (succeeded, said) = ended(waiting).await;
    assert!(!succeeded && said.contains("export cancelled") && !out.exists(), "{said}");

    // A slow one: the worker comes some seconds later.
    let slow = start_client(&folder, &sample_request("csv", Some("gzip")), &api);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    system.add_worker();
    let (succeeded, said) = ended(slow).await;
    assert!(succeeded, "{said}");
    assert!(std::fs::metadata(&out).unwrap().len() > 1000);
    std::fs::remove_file(&out).unwrap();

    // One that fails: nothing is left under the name, and the client says why.
    sqlx::raw_sql(
        "ALTER TABLE public.records RENAME TO rows;
         CREATE VIEW public.records AS SELECT id, 1 / (id - 500) AS value FROM public.rows",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    let fails = export_request("csv", None, ["id", "value"]);
    let (succeeded, said) = ended(start_client(&folder, &fails, &api)).await;
    assert!(!succeeded && said.contains("source_refused") && said.contains("22012") && !out.exists(), "{said}");
}
