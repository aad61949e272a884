//! Signals: the first SIGTERM or SIGINT stops taking work, a second one aborts the work that is held. SIGHUP has settings read
//! again.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The two stages of a shutdown and the tasks to wait for.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// Take no new work; finish what is held.
    pub stopping: CancellationToken,
    /// Give back unfinished work and end now.
    pub aborting: CancellationToken,
    pub tasks: TaskTracker,
}

impl Lifecycle {
    /// A lifecycle that listens to this process's signals.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub fn with_signals() -> std::io::Result<Self> {
        let this = Self::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let lifecycle = this.clone();
        tokio::spawn(async move {
            for token in [&lifecycle.stopping, &lifecycle.aborting] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(second = lifecycle.stopping.is_cancelled(), "signal received, shutting down");
                token.cancel();
            }
        });
        Ok(this)
    }

    /// Calls `reload` at every SIGHUP, which from now on does not end the process.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub fn on_hangup(&self, reload: impl Fn() + Send + 'static) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = hangup.recv() => reload(),
                    () = stopping.cancelled() => return,
                }
            }
        });
        Ok(())
    }
}
