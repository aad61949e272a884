//! How the devstack is asked to stop: Ctrl-C, SIGTERM, SIGHUP; a second one means at once. What stopping does is not here.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, Result};

/// Signals closer together than this are one wish: `timeout` and `make` pass on a signal that the terminal or the caller has
/// sent to the whole process group already.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Counts the stop signals that came. Clones see the same count.
#[derive(Clone, Debug)]
pub struct StopSignals {
    count: watch::Receiver<u32>,
}

impl StopSignals {
    /// Takes the stop signals over from their default action for the rest of the process.
    pub fn install() -> Result<Self> {
        let (sender, count) = watch::channel(0);
        let listen = |kind| signal(kind).map_err(Error::io("listen for stop signals"));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        // `nohup devstack run` ignores SIGHUP on purpose: leave it ignored.
        let mut hangup = if hangup_is_ignored() { None } else { Some(listen(SignalKind::hangup())?) };
        tokio::spawn(async move {
            let mut last: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    Some(()) = async { match &mut hangup { Some(hangup) => hangup.recv().await, None => std::future::pending().await } } => {}
                }
                if last.is_none_or(|last| last.elapsed() > ONE_WISH) {
                    last = Some(Instant::now());
                    sender.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(Self { count })
    }

    /// Resolves once a stop signal came.
    pub async fn requested(&self) {
        self.at_least(1).await;
    }

    /// Resolves once a second stop signal came: stop at once.
    pub async fn forced(&self) {
        self.at_least(2).await;
    }

    async fn at_least(&self, wanted: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= wanted).await.is_err() {
            // The listener is gone only when the runtime is: nothing will ever come.
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
