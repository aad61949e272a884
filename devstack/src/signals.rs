//! Stop signals of the devstack: Ctrl-C, SIGTERM, SIGHUP; a second one means at once. Stopping itself is elsewhere.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, Result};

/// Signals within this time count as one: `timeout` and `make` pass on a signal that the terminal or the caller has already
/// sent to the whole process group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Counts the stop signals. Clones share the count.
#[derive(Clone, Debug)]
pub struct StopSignals {
    count: watch::Receiver<u32>,
}

impl StopSignals {
    /// Replaces the default action of the stop signals for the rest of the process.
    pub fn install() -> Result<Self> {
        let (sender, count) = watch::channel(0);
        let listen = |kind| signal(kind).map_err(Error::io("listen for stop signals"));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        // `nohup devstack run` ignores SIGHUP on purpose.
        let mut hangup = if hangup_is_ignored() { None } else { Some(listen(SignalKind::hangup())?) };
        tokio::spawn(async move {
            let mut last: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    Some(()) = async { match &mut hangup { Some(hangup) => hangup.recv().await, None => std::future::pending().await } } => {}
                }
                if last.is_none_or(|last| last.elapsed() > SAME_SIGNAL) {
                    last = Some(Instant::now());
                    sender.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(Self { count })
    }

    /// Returns after the first stop signal.
    pub async fn requested(&self) {
        self.at_least(1).await;
    }

    /// Returns after the second stop signal: stop at once.
    pub async fn forced(&self) {
        self.at_least(2).await;
    }

    async fn at_least(&self, wanted: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= wanted).await.is_err() {
            // The listener ends only with the runtime: no signal will come.
            std::future::pending::<()>().await;
        }
    }
}

fn hangup_is_ignored() -> bool {
    const SIGHUP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & SIGHUP_BIT != 0)
}
