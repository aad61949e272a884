//! SeaweedFS as a strict S3 for tests: start, wait, kill. `devstack run` uses the embedded S3 instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::launch::{Launch, Running};
use crate::ports::free_ports;

/// A running SeaweedFS with one identity, which has all permissions.
#[derive(Debug)]
pub struct SeaweedFs {
    running: Running,
    endpoint: String,
}

impl SeaweedFs {
    /// Starts it with its files in `data_dir/seaweedfs`. Returns when its S3 port answers as S3 does.
    pub async fn start(data_dir: &Path, log: &Path, access_key: &str, secret_key: &str) -> Result<Self> {
        let program = find_program()?;
        let home = data_dir.join("seaweedfs");
        fs::create_dir_all(&home).map_err(Error::path("create", &home))?;
        let identities = serde_json::json!({"identities": [{
            "name": "polyglot",
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let config = home.join("s3.json");
        fs::write(&config, identities.to_string()).map_err(Error::path("write", &config))?;

        // Each bucket has volumes of its own, by default seven at once, and each test has a bucket.
        let growth = home.join("master.toml");
        fs::write(&growth, "[master.volume_growth]\ncopy_1 = 1\n").map_err(Error::path("write", &growth))?;

        let ports = free_ports(8)?;
        let named = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ];
        let running = Launch::new("SeaweedFS", program, data_dir, log)
            .current_dir(&home)
            .arg("server")
            .arg(format!("-dir={}", home.display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args(["-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=1000"])
            .arg(format!("-s3.config={}", config.display()))
            .args(named.iter().zip(&ports).map(|(name, port)| format!("-{name}={port}")))
            .death_signal("KILL")
            .spawn()?;
        let mut server = Self { running, endpoint: format!("http://127.0.0.1:{}", ports[6]) };
        server.wait_ready().await?;
        Ok(server)
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn pid(&self) -> Option<u32> {
        self.running.pid()
    }

    /// Kills it: its orderly stop takes 25 seconds, and its data is thrown away.
    pub async fn stop_at_once(self) {
        self.running.kill().await;
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()
            .map_err(Error::http("create an HTTP client"))?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.running.ended()? {
                return Err(self.running.failure(format!("ended while starting ({status})")));
            }
            // The request is not signed: an S3 that has read its identities answers 403.
            let answer = http.get(&self.endpoint).send().await;
            if answer.is_ok_and(|answer| answer.status() == 403) {
                return Ok(());
            }
            if started.elapsed() > Duration::from_mins(1) {
                return Err(self.running.failure("did not answer on its S3 port within 60 s"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// `weed` on the PATH, or in the `.tools/venv` of this folder or one above it.
fn find_program() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(Error::io("find the current folder"))?;
    let tools = here.ancestors().map(|folder| folder.join(".tools/venv/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = tools.chain(std::env::split_paths(&path)).collect();
    candidates.into_iter().map(|folder| folder.join("weed")).find(|program| program.is_file()).ok_or_else(|| {
        Error::Missing {
            what: "SeaweedFS (the program weed)".into(),
            advice: "devstack/install --tests puts it into .tools/venv".into(),
        }
    })
}
