//! Quotas: counted allowances that all clients share and of which one client may only have a part, so that neither many
//! clients nor a single one can use up the memory of the process.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;

/// The client at the other end of a connection, as far as TCP tells: clients behind one proxy are one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    /// The peer with this address. A client usually has a whole /64 of IPv6, so its last 64 bits are ignored.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            canonical @ IpAddr::V4(_) => canonical,
        })
    }

    /// The address; of IPv6 the first 64 bits.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0
    }
}

/// The size of a quota in units: connections, streams or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Units for all peers together.
    pub total: usize,
    /// Units for one peer.
    pub per_peer: usize,
}

/// The reason why a quota gives no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// All peers together have what there is.
    #[error("all clients together are at the limit")]
    Total,
    /// The peer has its part of it.
    #[error("the client is at its limit")]
    Peer,
}

impl QuotaExceeded {
    /// The status of an answer for this reason: 429 where the client has too much itself, 503 where others have filled the server.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Peer => StatusCode::TOO_MANY_REQUESTS,
            Self::Total => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A counted allowance; clones share it.
#[derive(Debug, Clone)]
pub struct Quota {
    limits: QuotaLimits,
    used: Arc<Mutex<Used>>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    /// Only peers that have something, so there are never more entries than units in use.
    by_peer: HashMap<Peer, usize>,
}

impl Quota {
    #[must_use]
    pub fn new(limits: QuotaLimits) -> Self {
        Self { limits, used: Arc::default() }
    }

    /// Takes `units` for `peer` until the permit is dropped.
    ///
    /// # Errors
    /// When the peer or all peers together would have more than their limit. Nothing is taken then.
    pub fn try_acquire(&self, peer: Peer, units: usize) -> Result<QuotaPermit, QuotaExceeded> {
        let mut permit = self.empty_permit(peer);
        permit.try_grow(units)?;
        Ok(permit)
    }

    /// A permit without units, which can grow.
    #[must_use]
    pub fn empty_permit(&self, peer: Peer) -> QuotaPermit {
        QuotaPermit { quota: self.clone(), peer, units: 0 }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // Nothing panics while it is locked.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Units of a quota, which are given back when it is dropped.
#[derive(Debug)]
pub struct QuotaPermit {
    quota: Quota,
    peer: Peer,
    units: usize,
}

impl QuotaPermit {
    /// Takes `more` units in addition.
    ///
    /// # Errors
    /// As [`Quota::try_acquire`]. The permit keeps what it has.
    pub fn try_grow(&mut self, more: usize) -> Result<(), QuotaExceeded> {
        if more == 0 {
            return Ok(());
        }
        let QuotaLimits { total, per_peer } = self.quota.limits;
        let mut used = self.quota.used();
        let of_peer = used.by_peer.get(&self.peer).copied().unwrap_or(0);
        // The peer's own limit is looked at first: a client that can do something about it is told so.
        if more > per_peer.saturating_sub(of_peer) {
            return Err(QuotaExceeded::Peer);
        }
        if more > total.saturating_sub(used.total) {
            return Err(QuotaExceeded::Total);
        }
        used.total += more;
        used.by_peer.insert(self.peer, of_peer + more);
        drop(used);
        self.units += more;
        Ok(())
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        if self.units == 0 {
            return;
        }
        let mut used = self.quota.used();
        used.total = used.total.saturating_sub(self.units);
        let left = used.by_peer.get(&self.peer).map_or(0, |of_peer| of_peer.saturating_sub(self.units));
        if left == 0 {
            used.by_peer.remove(&self.peer);
        } else {
            used.by_peer.insert(self.peer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::of(address.parse().unwrap())
    }

    #[test]
    fn a_peer_is_an_address_or_an_ipv6_network() {
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("2001:db8:0:1::1"), peer("2001:db8:0:1:ffff::2"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8:0:2::1"));
    }

    #[test]
    fn one_peer_gets_its_part_and_all_together_the_total() {
        let quota = Quota::new(QuotaLimits { total: 5, per_peer: 3 });
        let (a, b, c) = (peer("10.0.0.1"), peer("10.0.0.2"), peer("10.0.0.3"));
        let mut of_a = quota.try_acquire(a, 2).unwrap();
        of_a.try_grow(1).unwrap();
        assert_eq!(of_a.try_grow(1), Err(QuotaExceeded::Peer));
        assert_eq!(quota.try_acquire(a, 1).unwrap_err(), QuotaExceeded::Peer);
        let of_b = quota.try_acquire(b, 2).unwrap();
        assert_eq!(quota.try_acquire(c, 1).unwrap_err(), QuotaExceeded::Total);
        // What was refused took nothing, and what is dropped is free for anybody.
        drop(of_b);
        let of_c = quota.try_acquire(c, 2).unwrap();
        drop(of_a);
        drop(of_c);
        assert_eq!(quota.used().total, 0);
        assert!(quota.used().by_peer.is_empty());
        quota.try_acquire(b, 3).unwrap();
        assert_eq!(quota.try_acquire(b, 4).unwrap_err(), QuotaExceeded::Peer);
    }
}
