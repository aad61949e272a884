//! One export through the api: submit, wait, download, count. It shows, after a start, that all parts work together.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::{Value, json};
use tokio::fs::{self, File};
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::console::{ProgressLine, grouped, seconds, size};
use crate::error::{Error, Result};

/// The columns of the sample table.
const COLUMNS: [&str; 5] = ["id", "created_at", "name", "value", "metadata"];
/// Longest time without an answer of the api, which may be restarting.
const API_TIMEOUT: Duration = Duration::from_secs(30);

/// The result of the export.
#[derive(Debug)]
pub struct SampleExport {
    pub file: PathBuf,
    /// Records in the file, its header row not counted.
    pub rows: u64,
    pub bytes: u64,
    /// From the request to the last byte on this disk.
    pub took: Duration,
}

/// Exports the table `records` as CSV through the api at `api` into `file`, showing its progress.
///
/// The file appears when it is complete. `api_key` is sent to the api alone, `None` where it lets everybody in.
pub async fn run(api: &str, api_key: Option<&str>, file: &Path) -> Result<SampleExport> {
    let client = client(api_key)?;
    let started = Instant::now();
    let id = submit(&client, api).await?;
    wait_completed(&client, api, &id, started).await?;
    let (rows, bytes) = download(&client, api, &id, file).await?;
    Ok(SampleExport { file: file.to_owned(), rows, bytes, took: started.elapsed() })
}

/// A client that sends the key with every request.
fn client(api_key: Option<&str>) -> Result<Client> {
    let mut headers = HeaderMap::new();
    if let Some(key) = api_key {
        let value = HeaderValue::try_from(format!("Bearer {key}"));
        let mut value = value.map_err(|_| Error::Sample("cannot be asked for: API_KEY is not ASCII".into()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .default_headers(headers)
        .build()
        .map_err(Error::http("create an HTTP client"))
}

async fn submit(client: &Client, api: &str) -> Result<String> {
    let columns: Vec<_> = COLUMNS.iter().map(|name| json!({"source": name, "target": name})).collect();
    let action = "ask the api for an export";
    let answer = client
        .post(format!("{api}/exports"))
        .json(&json!({"format": "csv", "columns": columns}))
        .send()
        .await
        .map_err(Error::http(action))?;
    if answer.status() != StatusCode::CREATED {
        return Err(refused("was not accepted", answer).await);
    }
    let document: Value = answer.json().await.map_err(Error::http(action))?;
    match document["exportId"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(Error::Sample(format!("has no exportId in its answer: {document}"))),
    }
}

async fn wait_completed(client: &Client, api: &str, id: &str, started: Instant) -> Result<()> {
    let mut line = ProgressLine::new();
    let mut last_answer = Instant::now();
    loop {
        match status(client, api, id).await {
            Ok(document) => {
                last_answer = Instant::now();
                let progress = describe_progress(&document, started.elapsed());
                match document["status"].as_str() {
                    Some("completed") => {
                        line.finish(progress);
                        return Ok(());
                    }
                    Some(status @ ("failed" | "cancelled" | "expired")) => {
                        let error = &document["error"];
                        let error = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
                        return Err(Error::Sample(format!("{id} is {status}: {error}")));
                    }
                    _ => line.show(progress),
                }
            }
            Err(error) if last_answer.elapsed() > API_TIMEOUT => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn status(client: &Client, api: &str, id: &str) -> Result<Value> {
    let action = "ask for the state of the sample export";
    let answer = client
        .get(format!("{api}/exports/{id}"))
        .timeout(Duration::from_secs(10))
        .send()
        .await
        .and_then(Response::error_for_status)
        .map_err(Error::http(action))?;
    answer.json().await.map_err(Error::http(action))
}

fn describe_progress(document: &Value, took: Duration) -> String {
    let status = document["status"].as_str().unwrap_or("?");
    let progress = &document["progress"];
    let rows = progress["rows"].as_u64().unwrap_or(0);
    let total = match progress["rowsTotal"].as_u64() {
        Some(total) => format!(" of {}", grouped(total.max(rows))),
        None => String::new(),
    };
    let bytes = size(progress["bytes"].as_u64().unwrap_or(0));
    format!("sample export: {status}, {}{total} rows, {bytes}, {}", grouped(rows), seconds(took))
}

async fn download(client: &Client, api: &str, id: &str, file: &Path) -> Result<(u64, u64)> {
    let action = "download the sample export";
    let url = format!("{api}/exports/{id}/download");
    let mut answer = client.get(&url).send().await.map_err(Error::http(action))?;
    if answer.status().is_redirection() {
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // This client has no TLS: a store behind https is read through the api.
        answer = if location.starts_with("http://") {
            // The link is signed; the key is the api's alone.
            self::client(None)?.get(location).send().await.map_err(Error::http(action))?
        } else {
            client.get(format!("{url}?delivery=proxy")).send().await.map_err(Error::http(action))?
        };
    }
    if answer.status() != StatusCode::OK {
        return Err(refused("cannot be downloaded", answer).await);
    }

    let unfinished = file.with_extension("csv.unfinished");
    let write = |error| Error::path("write", &unfinished)(error);
    let mut out = BufWriter::with_capacity(
        1 << 20,
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).await.map_err(write)?,
    );
    let mut counter = RecordCounter::default();
    let mut bytes = 0;
    let mut body = answer.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(Error::http(action))?;
        counter.feed(&piece);
        bytes += piece.len() as u64;
        out.write_all(&piece).await.map_err(write)?;
    }
    out.flush().await.map_err(write)?;
    fs::rename(&unfinished, file).await.map_err(Error::path("write", file))?;
    Ok((counter.records.saturating_sub(1), bytes))
}

async fn refused(what: &str, answer: Response) -> Error {
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    let body: String = body.chars().take(500).collect();
    Error::Sample(format!("{what}: {status} {body}"))
}

/// Counts the records of a CSV in pieces: a line break inside quotes ends none.
#[derive(Debug, Default)]
struct RecordCounter {
    quoted: bool,
    records: u64,
}

impl RecordCounter {
    fn feed(&mut self, piece: &[u8]) {
        // A doubled quote inside quotes changes the state twice, so it needs no case of its own.
        for byte in piece {
            match byte {
                b'"' => self.quoted = !self.quoted,
                b'\n' if !self.quoted => self.records += 1,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_in_quotes_do_not_count() {
        let text = b"id,name\n1,\"a\nb\"\n2,\"say \"\"x\n\"\"\"\n";
        for cut in 0..text.len() {
            let mut counter = RecordCounter::default();
            counter.feed(&text[..cut]);
            counter.feed(&text[cut..]);
            assert_eq!(counter.records, 3);
        }
    }

    #[test]
    fn progress_shows_what_is_known() {
        let document = json!({"status": "running", "progress": {"rows": 1500, "rowsTotal": 1000, "bytes": 2_000_000}});
        let line = describe_progress(&document, Duration::from_millis(1500));
        assert_eq!(line, "sample export: running, 1,500 of 1,500 rows, 2.0 MB, 1.5 s");
        let line = describe_progress(&json!({"status": "pending", "progress": {"rowsTotal": null}}), Duration::ZERO);
        assert_eq!(line, "sample export: pending, 0 rows, 0 B, 0.0 s");
    }
}
