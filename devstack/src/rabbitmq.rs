//! A private RabbitMQ with an epmd of its own: configure, start, wait, stop. The services declare their queues.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::launch::{Launch, Running};
use crate::private_folder;

/// Ports of the broker, all on 127.0.0.1, and the password of its user.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    pub amqp_port: u16,
    /// Port of the Erlang distribution, which `rabbitmqctl` uses.
    pub distribution_port: u16,
    /// Port of the port mapper (epmd) of the distribution.
    pub epmd_port: u16,
    /// Password of the user `polyglot`. Used at the first start only: the broker keeps its users.
    pub password: String,
}

/// A running private broker. Dropping it kills it; [`Rabbit::stop`] is the clean way.
#[derive(Debug)]
pub struct Rabbit {
    node: Running,
    epmd: Running,
    settings: RabbitSettings,
}

impl Rabbit {
    pub fn is_installed() -> bool {
        find_scripts().is_ok()
    }

    /// Starts the broker whose files are in `data_dir/rabbitmq`. Returns when it answers on its AMQP port.
    ///
    /// The node is always `polyglot@localhost`, so data stays usable when ports change.
    pub async fn start(data_dir: &Path, log: &Path, settings: RabbitSettings) -> Result<Self> {
        let scripts = find_scripts()?;
        let home = data_dir.join("rabbitmq");
        let booted = home.join("first-boot-done");
        // An interrupted first boot leaves tables that no later boot repairs.
        if !booted.exists() && home.exists() {
            fs::remove_dir_all(&home).map_err(Error::path("remove", &home))?;
        }
        write_configuration(&home, &settings)?;

        // Started here and not by the Erlang machine, which would leave it running as a daemon.
        let epmd = environment(Launch::new("epmd", "epmd", data_dir, log), &home, &settings)
            .args(["-port", &settings.epmd_port.to_string(), "-address", "127.0.0.1"])
            .spawn()?;
        wait_for_port(settings.epmd_port).await;
        let node =
            environment(Launch::new("RabbitMQ", scripts.join("rabbitmq-server"), data_dir, log), &home, &settings)
                .spawn()?;
        let mut rabbit = Self { node, epmd, settings };
        rabbit.wait_ready().await?;
        fs::write(&booted, "").map_err(Error::path("write", &booted))?;
        Ok(rabbit)
    }

    /// The URL of its default virtual host.
    pub fn url(&self) -> String {
        format!("amqp://polyglot:{}@127.0.0.1:{}/%2f", self.settings.password, self.settings.amqp_port)
    }

    pub fn pid(&self) -> Option<u32> {
        self.node.pid()
    }

    /// Stops the broker in order; killed after 30 seconds.
    pub async fn stop(self) {
        self.node.stop(Signal::TERM, Duration::from_secs(30)).await;
        self.epmd.stop(Signal::TERM, Duration::from_secs(2)).await;
    }

    pub async fn stop_at_once(self) {
        self.node.kill().await;
        self.epmd.kill().await;
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.node.ended()? {
                return Err(self.node.failure(format!("ended while starting ({status})")));
            }
            if greets(self.settings.amqp_port).await {
                return Ok(());
            }
            if started.elapsed() > Duration::from_mins(2) {
                return Err(self.node.failure("did not answer on its AMQP port within 120 s"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The folder of the inner scripts: the ones on the PATH change to the user `rabbitmq` and read `/etc/rabbitmq`.
fn find_scripts() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("sbin"));
    let candidates = std::iter::once(PathBuf::from("/usr/lib/rabbitmq/bin")).chain(versions);
    candidates.into_iter().find(|path| path.join("rabbitmq-server").exists()).ok_or_else(|| Error::Missing {
        what: "RabbitMQ".into(),
        advice: "install the package rabbitmq-server (devstack/install does it), or set AMQP_URL to a broker of yours"
            .into(),
    })
}

fn write_configuration(home: &Path, settings: &RabbitSettings) -> Result<()> {
    for folder in ["home", "mnesia", "log", "config", "schema"] {
        let folder = home.join(folder);
        private_folder::create(&folder)?;
    }
    let conf = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\n\
         default_user = polyglot\n\
         default_pass = {}\n\
         disk_free_limit.absolute = 100MB\n\
         log.console = true\n\
         log.console.level = warning\n\
         log.file = false\n",
        settings.amqp_port, settings.password
    );
    for (name, text) in [("rabbitmq.conf", conf.as_str()), ("enabled_plugins", "[].\n"), ("advanced.config", "[].\n")] {
        let path = home.join(name);
        fs::write(&path, text).map_err(Error::path("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(Error::path("protect", &path))?;
    }
    Ok(())
}

/// Sets every port and folder to a private one, whatever the machine's configuration or this process's environment says.
fn environment(launch: Launch, home: &Path, settings: &RabbitSettings) -> Launch {
    let file = |name: &str| home.join(name);
    launch
        .without_env_prefix("RABBITMQ_")
        .without_env_prefix("ERL_")
        // Makes the script replace itself by the Erlang machine, so that the process that is started is the broker.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .without_env("NOTIFY_SOCKET")
        .env("HOME", file("home"))
        .env("RABBITMQ_NODENAME", "polyglot@localhost")
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", settings.amqp_port.to_string())
        .env("RABBITMQ_DIST_PORT", settings.distribution_port.to_string())
        .env("ERL_EPMD_PORT", settings.epmd_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_BASE", home)
        .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
        .env("RABBITMQ_LOG_BASE", file("log"))
        .env("RABBITMQ_PID_FILE", file("pid"))
        .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", file("config"))
        .env("RABBITMQ_SCHEMA_DIR", file("schema"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
        )
        .current_dir(home)
}

/// Whether a broker answers the AMQP greeting. It listens only once it is ready.
async fn greets(port: u16) -> bool {
    let greet = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        // A method frame on channel 0: Connection.Start.
        let mut head = [0_u8; 3];
        stream.read_exact(&mut head).await?;
        io::Result::Ok(head == [1, 0, 0])
    };
    matches!(timeout(Duration::from_secs(2), greet).await, Ok(Ok(true)))
}

async fn wait_for_port(port: u16) {
    // Without epmd the node starts one of its own, so this is no error.
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
