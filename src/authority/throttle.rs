//! Rate limits for guessing and flooding: counts the failures of each client and the attempts of each address over a short
//! period, in bounded memory.
//!
//! Uses the monotonic clock: a jump of the wall clock neither extends nor ends a block.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::identity::ClientKey;
use crate::time::Monotonic;

/// The clients and the addresses that are remembered. When there are more, the least active are forgotten.
const REMEMBERED: u64 = 100_000;
/// After so long without a failure there is nothing to remember.
const MEMORY: Duration = Duration::from_secs(120);
/// The periods that limits are given for, in milliseconds.
const MINUTE: i64 = 60_000;
const SECOND: i64 = 1_000;

/// Failures of clients and addresses.
#[derive(Debug)]
pub(super) struct Throttle {
    clients: Counted<ClientKey>,
    addresses: Counted<IpAddr>,
}

#[derive(Debug)]
struct Counted<K: Hash + Eq + Send + Sync + 'static> {
    /// Failures in a period …
    limit: i64,
    /// … of so many milliseconds.
    period: i64,
    failures: Cache<K, Arc<Failures>>,
}

/// A generic cell rate algorithm: when all failures so far will have been made up for, each taking its share of a period.
///
/// In units of a millisecond divided by the limit, so that nothing is rounded.
#[derive(Debug, Default)]
struct Failures {
    settled_at: AtomicI64,
}

/// A failed attempt to authenticate.
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

/// An IPv6 address stands for its /64, because one host usually has all addresses of it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
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
    /// With these limits a minute.
    pub(super) fn new(per_client: NonZeroU32, per_address: NonZeroU32) -> Self {
        Self { clients: Counted::new(per_client, MINUTE), addresses: Counted::new(per_address, MINUTE) }
    }

    /// Counts a failure; when the client or the address is over its limit, answers how long until it may fail again.
    ///
    /// What is refused is not counted, so that an attempt becomes available at a steady rate, however many are made.
    ///
    /// # Errors
    /// The time to wait.
    pub(super) fn fail(&self, attempt: Attempt, now: Monotonic) -> Result<(), Duration> {
        let (client, address) = (self.clients.of(attempt.client), self.addresses.of(attempt.address));
        let wait = self.clients.wait(&client, now).max(self.addresses.wait(&address, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.clients.count(&client, now)?;
        self.addresses.count(&address, now)
    }
}

/// Failures of addresses alone, for secrets that belong to nobody by name.
#[derive(Debug)]
pub(crate) struct AddressThrottle(Counted<IpAddr>);

impl AddressThrottle {
    /// With this limit a minute.
    pub(crate) fn new(per_address: NonZeroU32) -> Self {
        Self(Counted::new(per_address, MINUTE))
    }

    /// Counts a failure, as [`Throttle::fail`].
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn fail(&self, address: IpAddr, now: Monotonic) -> Result<(), Duration> {
        let failures = self.0.of(network(address));
        self.0.count(&failures, now)
    }
}

/// Attempts by anything that can be told apart.
#[derive(Debug)]
pub(crate) struct GuessLimit<K: Hash + Eq + Send + Sync + 'static>(Counted<K>);

impl<K: Hash + Eq + Send + Sync + 'static> GuessLimit<K> {
    /// With this limit a minute.
    pub(crate) fn new(per_minute: NonZeroU32) -> Self {
        Self(Counted::new(per_minute, MINUTE))
    }

    /// With this limit a second.
    pub(crate) fn per_second(limit: NonZeroU32) -> Self {
        Self(Counted::new(limit, SECOND))
    }

    /// Counts an attempt, as [`Throttle::fail`].
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn fail(&self, key: K, now: Monotonic) -> Result<(), Duration> {
        let failures = self.0.of(key);
        self.0.count(&failures, now)
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> Counted<K> {
    fn new(limit: NonZeroU32, period: i64) -> Self {
        let failures = Cache::builder().max_capacity(REMEMBERED).time_to_idle(MEMORY).build();
        Self { limit: i64::from(limit.get()), period, failures }
    }

    fn of(&self, key: K) -> Arc<Failures> {
        // Settled long ago, on whatever side of zero the clock stands.
        self.failures.get_with(key, || Arc::new(Failures { settled_at: AtomicI64::new(i64::MIN) }))
    }

    fn units(&self, now: Monotonic) -> i64 {
        now.as_millis().saturating_mul(self.limit)
    }

    /// When all failures will have been made up for after one more; an error when that is more than a period's worth.
    fn after(&self, settled_at: i64, now: Monotonic) -> Result<i64, Duration> {
        let now = self.units(now);
        let after = settled_at.max(now).saturating_add(self.period);
        let excess = after.saturating_sub(now).saturating_sub(self.limit.saturating_mul(self.period));
        let wait = u64::try_from(excess).unwrap_or(0).div_ceil(self.limit.unsigned_abs().max(1));
        if wait == 0 { Ok(after) } else { Err(Duration::from_millis(wait)) }
    }

    fn wait(&self, failures: &Failures, now: Monotonic) -> Duration {
        self.after(failures.settled_at.load(Ordering::Relaxed), now).err().unwrap_or_default()
    }

    /// Counts one more, unless others have used up the limit meanwhile.
    fn count(&self, failures: &Failures, now: Monotonic) -> Result<(), Duration> {
        let counted = failures.settled_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |settled_at| {
            self.after(settled_at, now).ok()
        });
        counted.map(drop).map_err(|settled_at| self.after(settled_at, now).err().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn attempt(client: &str, last: u8) -> Attempt {
        Attempt::new("https://a/", client, Ipv4Addr::new(192, 0, 2, last).into())
    }

    #[test]
    fn a_client_is_slowed_after_its_failures_and_others_are_not() {
        // A process may have started long ago, or its clock may stand before its start.
        for start in [-5_000, 0, 1_000_000_000] {
            let now = Monotonic::from_millis(start);
            let throttle = Throttle::new(number(10), number(1_000));
            for _ in 0..10 {
                assert_eq!(throttle.fail(attempt("c", 1), now), Ok(()));
            }
            let six = Duration::from_secs(6);
            assert_eq!(throttle.fail(attempt("c", 2), now), Err(six), "from anywhere");
            assert_eq!(throttle.fail(attempt("d", 1), now), Ok(()));
            let later = now.plus(Duration::from_millis(5_999));
            assert_eq!(throttle.fail(attempt("c", 1), later), Err(Duration::from_millis(1)));
            let later = now.plus(six);
            assert_eq!(throttle.fail(attempt("c", 1), later), Ok(()), "one attempt is available");
            assert_eq!(throttle.fail(attempt("c", 1), later), Err(six), "and one only");
            let later = later.plus(Duration::from_secs(3600));
            let passed = (0..20).filter(|_| throttle.fail(attempt("c", 1), later).is_ok()).count();
            assert_eq!(passed, 10, "not more than a minute's worth is saved up");
        }
    }

    #[test]
    fn every_limit_lets_its_rate_pass_and_never_asks_to_wait_longer_than_one_share() {
        for limit in [1, 2, 3, 7, 10, 59, 61, 1_000, 1_000_000] {
            let throttle = Throttle::new(number(limit), number(1_000_000));
            let mut passed = 0_u32;
            // Ten minutes of attempts, as many as 20 a second.
            for tick in 0..12_000 {
                let now = Monotonic::from_millis(tick * 50);
                match throttle.fail(attempt("c", 1), now) {
                    Ok(()) => passed += 1,
                    Err(wait) => {
                        assert!(wait <= Duration::from_millis(u64::from(60_000 / limit + 1)), "{wait:?}")
                    }
                }
            }
            let most = limit.saturating_mul(11).min(12_000);
            assert!(passed <= most && passed + 2 >= most.min(limit.saturating_mul(10)), "{limit}: {passed}");
        }
    }

    #[test]
    fn an_address_is_slowed_whatever_clients_it_tries() {
        let (throttle, now) = (Throttle::new(number(10), number(20)), Monotonic::from_millis(0));
        for client in 0..20 {
            assert_eq!(throttle.fail(attempt(&client.to_string(), 1), now), Ok(()));
        }
        assert!(throttle.fail(attempt("another", 1), now).is_err());
        assert_eq!(throttle.fail(attempt("another", 2), now), Ok(()));
    }

    #[test]
    fn a_failure_that_the_address_has_no_room_for_is_not_counted_against_the_client() {
        let (throttle, now) = (Throttle::new(number(2), number(1)), Monotonic::from_millis(0));
        assert_eq!(throttle.fail(attempt("d", 1), now), Ok(()));
        assert!((0..5).all(|_| throttle.fail(attempt("c", 1), now) == Err(Duration::from_secs(60))));
        assert_eq!(throttle.fail(attempt("c", 2), now), Ok(()));
        assert_eq!(throttle.fail(attempt("c", 3), now), Ok(()));
        assert_eq!(throttle.fail(attempt("c", 4), now), Err(Duration::from_secs(30)));
    }

    #[test]
    fn addresses_alone_are_slowed_each_by_its_own_failures() {
        let throttle = AddressThrottle::new(number(3));
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let now = Monotonic::from_millis(0);
        let failed = |address, now| throttle.fail(address, now);
        assert!((0..3).all(|_| failed(one, now).is_ok()));
        let wait = Duration::from_secs(20);
        assert_eq!(failed(one, now), Err(wait));
        assert_eq!(failed(one, now), Err(wait), "what is refused is not counted");
        assert_eq!(failed(other, now), Ok(()));
        assert_eq!(failed(one, now.plus(wait)), Ok(()));
    }

    #[test]
    fn a_limit_a_second_lets_as_many_pass_at_once_and_then_one_after_each_share() {
        let (limit, now) = (GuessLimit::per_second(number(50)), Monotonic::from_millis(7));
        assert!((0..50).all(|_| limit.fail("a", now).is_ok()));
        assert_eq!(limit.fail("a", now), Err(Duration::from_millis(20)));
        assert_eq!(limit.fail("b", now), Ok(()));
        assert_eq!(limit.fail("a", now.plus(Duration::from_millis(19))), Err(Duration::from_millis(1)));
        let later = now.plus(Duration::from_millis(20));
        assert_eq!(
            (limit.fail("a", later), limit.fail("a", later)),
            (Ok(()), Err(Duration::from_millis(20)))
        );
        let later = later.plus(Duration::from_secs(3_600));
        assert_eq!((0..80).filter(|_| limit.fail("a", later).is_ok()).count(), 50, "no more are saved up");
    }

    #[test]
    fn a_flood_of_clients_takes_bounded_memory() {
        let throttle = Throttle::new(number(1), number(1_000_000));
        for client in 0..150_000 {
            assert!(throttle.fail(attempt(&client.to_string(), 1), Monotonic::from_millis(0)).is_ok());
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
