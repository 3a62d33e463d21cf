//! What slows down guessing: failures of each client and of each address, a minute's worth at a time, in bounded memory.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use moka::sync::Cache;

use crate::identity::ClientKey;
use crate::time::Timestamp;

/// Clients and addresses remembered of each. Those forgotten for room are the ones least in the way.
const REMEMBERED: u64 = 100_000;
/// After so long without a failure there is nothing to remember.
const MEMORY: Duration = Duration::from_secs(120);

/// Failures of clients and addresses.
#[derive(Debug)]
pub(super) struct Throttle {
    clients: Counted<ClientKey>,
    addresses: Counted<IpAddr>,
}

#[derive(Debug)]
struct Counted<K: Hash + Eq + Send + Sync + 'static> {
    quota: Quota,
    failures: Cache<K, Arc<Failures>>,
}

#[derive(Debug)]
struct Failures {
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>,
    /// In milliseconds. The limiter cannot be asked without being charged, and only failures are charged for.
    blocked_until: AtomicI64,
}

/// Who tries to authenticate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    client: ClientKey,
    address: IpAddr,
}

impl Attempt {
    /// By a client, which need not exist, from an address.
    pub(super) fn new(issuer: &str, client_id: &str, address: IpAddr) -> Self {
        Self { client: ClientKey::new(issuer, client_id), address: network(address) }
    }
}

/// An IPv6 address stands for its /64, of which whoever has one has all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets.iter_mut().skip(8).for_each(|octet| *octet = 0);
            octets.into()
        }
        v4 => v4,
    }
}

impl Throttle {
    /// So many failures a minute are let pass.
    pub(super) fn new(per_client: NonZeroU32, per_address: NonZeroU32) -> Self {
        Self { clients: Counted::new(per_client), addresses: Counted::new(per_address) }
    }

    /// Whether an attempt may be made; if not, how long to wait for the next.
    pub(super) fn check(&self, attempt: Attempt, now: Timestamp) -> Result<(), Duration> {
        let until =
            self.clients.blocked_until(&attempt.client).max(self.addresses.blocked_until(&attempt.address));
        if until > now { Err(until.since(now)) } else { Ok(()) }
    }

    /// Takes note that an attempt failed.
    pub(super) fn failed(&self, attempt: Attempt, now: Timestamp) {
        self.clients.failed(attempt.client, now);
        self.addresses.failed(attempt.address, now);
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> Counted<K> {
    fn new(per_minute: NonZeroU32) -> Self {
        let failures = Cache::builder().max_capacity(REMEMBERED).time_to_idle(MEMORY).build();
        Self { quota: Quota::per_minute(per_minute), failures }
    }

    fn blocked_until(&self, key: &K) -> Timestamp {
        let known = self.failures.get(key);
        known.map_or(Timestamp::EPOCH, |known| {
            Timestamp::from_millis(known.blocked_until.load(Ordering::Relaxed))
        })
    }

    fn failed(&self, key: K, now: Timestamp) {
        let failures = self.failures.get_with(key, || {
            let limiter = RateLimiter::direct(self.quota).with_middleware();
            Arc::new(Failures { limiter, blocked_until: AtomicI64::new(0) })
        });
        let left = failures.limiter.check().map_or(0, |state| state.remaining_burst_capacity());
        if left == 0 {
            let until = now.plus(self.quota.replenish_interval());
            failures.blocked_until.fetch_max(until.as_millis(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000_000);

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn attempt(client: &str, last: u8) -> Attempt {
        Attempt::new("https://a/", client, Ipv4Addr::new(192, 0, 2, last).into())
    }

    #[test]
    fn a_client_is_slowed_after_its_failures_and_others_are_not() {
        let throttle = Throttle::new(number(10), number(1_000));
        for _ in 0..10 {
            assert_eq!(throttle.check(attempt("c", 1), NOW), Ok(()));
            throttle.failed(attempt("c", 1), NOW);
        }
        assert_eq!(throttle.check(attempt("c", 2), NOW), Err(Duration::from_secs(6)), "from anywhere");
        assert_eq!(throttle.check(attempt("d", 1), NOW), Ok(()));
        assert_eq!(throttle.check(attempt("c", 1), NOW.plus(Duration::from_secs(6))), Ok(()));
    }

    #[test]
    fn an_address_is_slowed_whatever_clients_it_tries() {
        let throttle = Throttle::new(number(10), number(20));
        for client in 0..20 {
            throttle.failed(attempt(&client.to_string(), 1), NOW);
        }
        assert!(throttle.check(attempt("another", 1), NOW).is_err());
        assert_eq!(throttle.check(attempt("another", 2), NOW), Ok(()));
    }

    #[test]
    fn a_flood_of_clients_takes_bounded_memory() {
        let throttle = Throttle::new(number(1), number(1_000_000));
        for client in 0..150_000 {
            throttle.failed(attempt(&client.to_string(), 1), NOW);
        }
        throttle.clients.failures.run_pending_tasks();
        assert!(throttle.clients.failures.entry_count() <= REMEMBERED);
    }

    #[test]
    fn an_ipv6_address_is_its_network() {
        let [a, b, c] =
            ["2001:db8:1:2::3", "2001:db8:1:2:ffff::4", "2001:db8:1:3::3"].map(|a| a.parse().unwrap());
        assert_eq!(network(a), network(b));
        assert_ne!(network(a), network(c));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
