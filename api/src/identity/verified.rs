//! Credentials that the ledger has confirmed a moment ago, so that not every request asks it. What was refused is not
//! remembered: the memory that it takes would be a client's choice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polyglot_ledger::SecretHash;
use tokio::time::Instant;
use uuid::Uuid;

use super::caller::Identity;

/// Time for which the ledger is not asked again, and so the longest time for which a revoked key still works.
const FRESH: Duration = Duration::from_secs(5);

/// Time for which confirmed credentials are good while the ledger is not available.
const USABLE: Duration = Duration::from_mins(1);

/// Credentials that are remembered at most.
const CAPACITY: usize = 10_000;

/// What a client has presented, by its hash. A key and a session are never taken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Secret {
    ApiKey(Uuid, SecretHash),
    Session(SecretHash),
}

/// How old a remembered identity may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Age {
    /// Young enough not to ask.
    Fresh,
    /// Good while the ledger cannot be asked.
    Usable,
}

#[derive(Default)]
pub(super) struct Verified(Mutex<HashMap<Secret, (Instant, Arc<Identity>)>>);

impl Verified {
    /// The identity that the secret stands for.
    pub(super) fn get(&self, secret: &Secret, age: Age, now: Instant) -> Option<Arc<Identity>> {
        let limit = match age {
            Age::Fresh => FRESH,
            Age::Usable => USABLE,
        };
        self.entries()
            .get(secret)
            .filter(|(at, _)| now.duration_since(*at) < limit)
            .map(|(_, identity)| Arc::clone(identity))
    }

    pub(super) fn insert(&self, secret: Secret, identity: Arc<Identity>, now: Instant) {
        let mut entries = self.entries();
        if entries.len() >= CAPACITY {
            entries.retain(|_, (at, _)| now.duration_since(*at) < FRESH);
        }
        if entries.len() >= CAPACITY {
            entries.clear();
        }
        entries.insert(secret, (now, identity));
    }

    pub(super) fn remove(&self, secret: &Secret) {
        self.entries().remove(secret);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Secret, (Instant, Arc<Identity>)>> {
        // A panic while the lock is held leaves the map intact.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_is_remembered_for_a_while() {
        let (verified, hash, start) = (Verified::default(), Secret::Session([7; 32]), Instant::now());
        let knows = |age, after| verified.get(&hash, age, start + after).is_some();
        assert!(!knows(Age::Usable, Duration::ZERO));
        verified.insert(hash, Arc::new(Identity::anonymous()), start);
        assert!(knows(Age::Fresh, Duration::ZERO));
        assert!(!knows(Age::Fresh, FRESH) && knows(Age::Usable, FRESH));
        assert!(!knows(Age::Usable, USABLE));
        let key = Secret::ApiKey(Uuid::nil(), [7; 32]);
        assert!(verified.get(&key, Age::Usable, start).is_none(), "a session was taken for a key");
        verified.remove(&hash);
        assert!(!knows(Age::Usable, Duration::ZERO));
    }

    #[test]
    fn memory_is_bounded() {
        let (verified, identity) = (Verified::default(), Arc::new(Identity::anonymous()));
        for number in 0..2 * CAPACITY as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            verified.insert(Secret::ApiKey(Uuid::nil(), hash), Arc::clone(&identity), Instant::now());
        }
        assert!(verified.entries().len() <= CAPACITY);
    }
}
