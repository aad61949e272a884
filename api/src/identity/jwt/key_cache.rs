//! The issuer's keys in memory. All verifications share them, and share a fetch that is going on. How often the issuer is asked
//! does not depend on what clients send: after its lifetime a set is fetched once, and for key ids that are not in it at most
//! every 30 seconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use polyglot_core::failure::chain;
use tokio::sync::watch;

use super::clock::{Clock, is_within};
use super::error::JwtError;
use super::jwk::KeySet;
use super::jwks_client::JwksClient;

/// Time after its lifetime for which a set is used while the next one is fetched, so that nobody waits for the issuer. An api
/// that has had no request for longer waits: in that time the issuer may have removed a key.
const WHILE_REVALIDATING: TimeDelta = TimeDelta::minutes(1);

/// Time for which the last set is used while the issuer cannot be reached.
const MAX_AGE: TimeDelta = TimeDelta::hours(24);

/// Shortest time between two fetches, while there is a set and while there is none.
const PAUSE: TimeDelta = TimeDelta::seconds(30);
const PAUSE_WITHOUT_KEYS: TimeDelta = TimeDelta::seconds(5);

/// Time after which a client may try again whose token names a key that was not in the set when the issuer was last reached.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) struct KeyCache(Arc<Shared>);

struct Shared {
    client: JwksClient,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<FetchedKeys>,
    attempted_at: Option<DateTime<Utc>>,
    /// The last attempt has failed.
    has_failed: bool,
    /// A fetch that may be going on: it is over when its sender is dropped.
    running: Option<watch::Receiver<()>>,
}

#[derive(Clone)]
struct FetchedKeys {
    keys: Arc<KeySet>,
    at: DateTime<Utc>,
    lifetime: TimeDelta,
}

impl KeyCache {
    pub(super) fn new(client: JwksClient, clock: Clock) -> Self {
        Self(Arc::new(Shared { client, clock, state: Mutex::default() }))
    }

    /// The present keys. Fetches them if there are none, or if the last ones are old.
    pub(super) async fn current(&self) -> Result<Arc<KeySet>, JwtError> {
        let now = self.0.clock.now();
        let last = self.0.state().last.clone();
        if let Some(last) = &last {
            if is_within(last.lifetime, last.at, now) {
                return Ok(Arc::clone(&last.keys));
            }
            if is_within(last.lifetime + WHILE_REVALIDATING, last.at, now) {
                self.begin_fetch(PAUSE);
                return Ok(Arc::clone(&last.keys));
            }
        }
        self.fetch(if last.is_some() { PAUSE } else { PAUSE_WITHOUT_KEYS }).await;
        self.0.usable()
    }

    /// The keys after a fetch, if one is due, for a token whose key id is not among the present ones.
    ///
    /// # Errors
    /// If the issuer could not be reached, and may have the key.
    pub(super) async fn for_unknown_id(&self, id: &str) -> Result<Arc<KeySet>, JwtError> {
        self.fetch(PAUSE).await;
        let keys = self.0.usable()?;
        if self.0.state().has_failed && !keys.has(id) {
            return Err(JwtError::Unavailable { retry_after: RETRY_AFTER });
        }
        Ok(keys)
    }

    /// Waits for a fetch: the one that is going on, or a new one, unless the last one is less than `pause` ago.
    async fn fetch(&self, pause: TimeDelta) {
        if let Some(mut running) = self.begin_fetch(pause) {
            // An error is what is waited for: nothing is ever sent.
            let _ = running.changed().await;
        }
    }

    /// Sees to it that a fetch is going on, unless the last one is less than `pause` ago. It has a task of its own, so that it
    /// goes on when the client that caused it leaves.
    fn begin_fetch(&self, pause: TimeDelta) -> Option<watch::Receiver<()>> {
        let now = self.0.clock.now();
        let mut state = self.0.state();
        if let Some(running) = state.running.as_ref().filter(|running| running.has_changed().is_ok()) {
            return Some(running.clone());
        }
        if state.attempted_at.is_some_and(|at| is_within(pause, at, now)) {
            return None;
        }
        let (running, receiver) = watch::channel(());
        state.attempted_at = Some(now);
        state.running = Some(receiver.clone());
        drop(state);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            shared.replace_keys().await;
            drop(running);
        });
        Some(receiver)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the keys and replaces the last ones, unless it fails.
    async fn replace_keys(&self) {
        let fetched = self.client.fetch().await;
        // Taken after the fetch, whose time does not count.
        let now = self.clock.now();
        match fetched {
            Ok((keys, lifetime)) => {
                if keys.len() == 0 {
                    tracing::warn!("the issuer's key set has no key for JWT_ALGORITHMS; every token is refused");
                } else {
                    tracing::debug!(keys = keys.len(), "the issuer's keys were fetched");
                }
                let lifetime = TimeDelta::from_std(lifetime).unwrap_or(PAUSE);
                let mut state = self.state();
                state.last = Some(FetchedKeys { keys: Arc::new(keys), at: now, lifetime });
                state.has_failed = false;
            }
            Err(error) => {
                let age = {
                    let mut state = self.state();
                    state.has_failed = true;
                    state.last.as_ref().map(|last| (now - last.at).num_seconds())
                };
                tracing::warn!(
                    error = chain(&error),
                    age_seconds = age,
                    "the issuer's keys cannot be fetched; the last ones are used until they are 24 hours old"
                );
            }
        }
    }

    /// The last keys, however old, up to the limit.
    fn usable(&self) -> Result<Arc<KeySet>, JwtError> {
        let now = self.clock.now();
        let state = self.state();
        match &state.last {
            Some(last) if is_within(MAX_AGE, last.at, now) => Ok(Arc::clone(&last.keys)),
            _ => Err(JwtError::Unavailable { retry_after: RETRY_AFTER }),
        }
    }
}
