//! Tracks whether required signals about an issuer's tokens still arrive, and reports the subjects whose
//! tokens were seen.
//!
//! Written by `signals`; read here with one atomic load per required transmitter.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::decide::Enforcer;
use super::denial::Reason;
use super::token::{IssuerIndex, VerifiedToken};
use crate::time::Monotonic;

/// The value of `overdue_at` that counts as stale at any time.
const SUSPENDED: i64 = i64::MIN;

/// When a transmitter's heartbeat was last confirmed, and when the next one is overdue.
#[derive(Debug)]
pub struct SignalClock {
    transmitter: Box<str>,
    /// In milliseconds on the monotonic clock, as `confirmed_at`; [`SUSPENDED`] once the transmitter has
    /// stopped sending.
    overdue_at: AtomicI64,
    confirmed_at: AtomicI64,
}

impl SignalClock {
    /// Creates a clock that starts now; without a confirmation it is overdue after `patience`.
    #[must_use]
    pub fn new(transmitter: &str, now: Monotonic, patience: Duration) -> Self {
        let overdue_at = now.plus(patience).as_millis().into();
        Self { transmitter: transmitter.into(), overdue_at, confirmed_at: now.as_millis().into() }
    }

    /// The configured name of the transmitter.
    #[must_use]
    pub fn transmitter(&self) -> &str {
        &self.transmitter
    }

    /// Records the heartbeat of `at`; the next one is overdue after `patience`.
    pub fn confirm(&self, at: Monotonic, patience: Duration) {
        self.confirmed_at.fetch_max(at.as_millis(), Ordering::AcqRel);
        self.overdue_at.store(at.plus(patience).as_millis(), Ordering::Release);
    }

    /// Marks the transmitter as stopped until the next confirmation.
    pub fn suspend(&self) {
        self.overdue_at.store(SUSPENDED, Ordering::Release);
    }

    /// Whether the transmitter announced that it has stopped sending.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.overdue_at.load(Ordering::Acquire) == SUSPENDED
    }

    /// Whether signals may be missing.
    #[must_use]
    pub fn is_stale(&self, now: Monotonic) -> bool {
        now.as_millis() > self.overdue_at.load(Ordering::Acquire)
    }

    /// How long ago the last heartbeat was confirmed, or the clock created.
    #[must_use]
    pub fn age(&self, now: Monotonic) -> Duration {
        now.since(Monotonic::from_millis(self.confirmed_at.load(Ordering::Acquire)))
    }
}

/// A queue for the subjects of newly verified tokens, so that a transmitter is asked to send their signals.
/// Bounded: if the queue is full, a subject waits for its next token.
#[derive(Debug, Clone)]
pub struct SeenSubjects(mpsc::Sender<Box<str>>);

impl SeenSubjects {
    /// Creates a queue for `capacity` subjects, and returns its receiver.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Box<str>>) {
        let (seen, arriving) = mpsc::channel(capacity);
        (Self(seen), arriving)
    }

    fn note(&self, subject: &str) {
        // Reserves first, so that a full queue costs no allocation.
        if let Ok(place) = self.0.try_reserve() {
            place.send(subject.into());
        }
    }
}

/// The signals about the tokens of one issuer.
#[derive(Debug, Clone, Default)]
pub struct IssuerSignals {
    /// The transmitters without whose signals its tokens are not accepted.
    pub required: Vec<Arc<SignalClock>>,
    /// The queues of transmitters that need to know its subjects.
    pub subjects: Vec<SeenSubjects>,
}

impl Enforcer {
    /// Also judges the tokens of each issuer by these signals, which are in the order of the issuers.
    #[must_use]
    pub fn with_signals(mut self, signals: Vec<IssuerSignals>) -> Self {
        self.signals = signals.into();
        self
    }

    /// Checks that all required transmitters of this issuer's tokens are heard from.
    ///
    /// # Errors
    /// When one of them is overdue.
    pub(super) fn check_signals(&self, issuer: IssuerIndex, now: Monotonic) -> Result<(), Reason> {
        if self.stale_signals(issuer, now).is_some() { Err(Reason::SignalsStale) } else { Ok(()) }
    }

    /// The first required transmitter of this issuer's tokens that is overdue.
    pub(super) fn stale_signals(&self, issuer: IssuerIndex, now: Monotonic) -> Option<&SignalClock> {
        let mut required = self.of_issuer(issuer).flat_map(|signals| &signals.required);
        required.find(|clock| clock.is_stale(now)).map(AsRef::as_ref)
    }

    fn of_issuer(&self, issuer: IssuerIndex) -> impl Iterator<Item = &IssuerSignals> {
        self.signals.get(usize::from(issuer.0)).into_iter()
    }

    /// Queues the subject of a newly verified token.
    pub(super) fn note_subject(&self, token: &VerifiedToken) {
        let wanted = self.of_issuer(token.issuer).flat_map(|signals| &signals.subjects);
        if let Some(subject) = &token.subject {
            wanted.for_each(|seen| seen.note(subject));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: i64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn a_clock_is_stale_from_the_moment_after_its_patience() {
        let clock = SignalClock::new("t", at(1_000), Duration::from_secs(2));
        for (now, stale) in [(1_000, false), (3_000, false), (3_001, true)] {
            assert_eq!(clock.is_stale(at(now)), stale, "{now}");
        }
        assert_eq!(clock.age(at(3_001)), Duration::from_millis(2_001));
        clock.confirm(at(5_000), Duration::from_secs(4));
        for (now, stale) in [(9_000, false), (9_001, true)] {
            assert_eq!(clock.is_stale(at(now)), stale, "{now}");
        }
        assert_eq!(clock.age(at(9_000)), Duration::from_secs(4));
    }

    #[test]
    fn a_suspended_clock_is_stale_until_it_is_confirmed() {
        let clock = SignalClock::new("t", at(0), Duration::from_secs(100));
        assert!(!clock.is_suspended() && !clock.is_stale(at(1)));
        clock.suspend();
        assert!(clock.is_suspended() && clock.is_stale(at(-1_000_000)));
        assert_eq!(clock.age(at(7)), Duration::from_millis(7));
        clock.confirm(at(10), Duration::from_millis(5));
        assert!(!clock.is_suspended() && !clock.is_stale(at(15)) && clock.is_stale(at(16)));
    }

    #[test]
    fn subjects_beyond_the_capacity_are_not_kept() {
        let (seen, mut arriving) = SeenSubjects::channel(2);
        ["a", "b", "c"].iter().for_each(|subject| seen.note(subject));
        let mut next = || arriving.try_recv().ok().map(String::from);
        assert_eq!([next(), next(), next()], [Some("a".to_owned()), Some("b".to_owned()), None]);
        seen.note("d");
        assert_eq!(arriving.try_recv().ok().as_deref(), Some("d"));
    }
}

#[cfg(test)]
mod judged;
