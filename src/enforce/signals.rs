//! Tracks whether the signals about an issuer's tokens still arrive, and which subjects' tokens were seen.
//!
//! Written by `signals`; read here with one atomic load for each required transmitter.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::decide::Enforcer;
use super::denial::Reason;
use super::token::{IssuerIndex, VerifiedToken};
use crate::time::Monotonic;

/// Stale, whatever the time.
const SUSPENDED: i64 = i64::MIN;

/// When a transmitter's heartbeat was last confirmed, and until when that is good.
#[derive(Debug)]
pub struct SignalClock {
    transmitter: Box<str>,
    /// Milliseconds on the monotonic clock, as the next; [`SUSPENDED`] once the transmitter no longer sends.
    overdue_at: AtomicI64,
    confirmed_at: AtomicI64,
}

impl SignalClock {
    /// Counts from now on; without a confirmation it is overdue after `patience`.
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

    /// The heartbeat of `at` arrived, which is good for `patience`.
    pub fn confirm(&self, at: Monotonic, patience: Duration) {
        self.confirmed_at.fetch_max(at.as_millis(), Ordering::AcqRel);
        self.overdue_at.store(at.plus(patience).as_millis(), Ordering::Release);
    }

    /// The transmitter no longer sends anything, until the next confirmation.
    pub fn suspend(&self) {
        self.overdue_at.store(SUSPENDED, Ordering::Release);
    }

    /// Whether the transmitter said that it sends nothing.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.overdue_at.load(Ordering::Acquire) == SUSPENDED
    }

    /// Whether signals may be missing.
    #[must_use]
    pub fn is_stale(&self, now: Monotonic) -> bool {
        now.as_millis() > self.overdue_at.load(Ordering::Acquire)
    }

    /// How long ago the last heartbeat was confirmed, or counting began.
    #[must_use]
    pub fn age(&self, now: Monotonic) -> Duration {
        now.since(Monotonic::from_millis(self.confirmed_at.load(Ordering::Acquire)))
    }
}

/// Where the subjects of tokens that were verified for the first time go, so that a transmitter is asked to send their
/// signals. Bounded: when nobody takes them out in time, a subject waits for its next token.
#[derive(Debug, Clone)]
pub struct SeenSubjects(mpsc::Sender<Box<str>>);

impl SeenSubjects {
    /// Room for `capacity` subjects, and where they come out.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Box<str>>) {
        let (seen, arriving) = mpsc::channel(capacity);
        (Self(seen), arriving)
    }

    fn note(&self, subject: &str) {
        // Reserved first: a full queue costs no allocation.
        if let Ok(place) = self.0.try_reserve() {
            place.send(subject.into());
        }
    }
}

/// What signals mean for the tokens of one issuer.
#[derive(Debug, Clone, Default)]
pub struct IssuerSignals {
    /// The transmitters without which its tokens are not judged.
    pub required: Vec<Arc<SignalClock>>,
    /// The transmitters that want to know its subjects.
    pub subjects: Vec<SeenSubjects>,
}

impl Enforcer {
    /// Judges the tokens of each issuer, in their order, by these signals as well.
    #[must_use]
    pub fn with_signals(mut self, signals: Vec<IssuerSignals>) -> Self {
        self.signals = signals.into();
        self
    }

    /// # Errors
    /// When a transmitter that must be heard about this issuer's tokens is not.
    pub(super) fn check_signals(&self, issuer: IssuerIndex, now: Monotonic) -> Result<(), Reason> {
        if self.stale_signals(issuer, now).is_some() { Err(Reason::SignalsStale) } else { Ok(()) }
    }

    /// The first of the transmitters that must be heard about this issuer's tokens and is not.
    pub(super) fn stale_signals(&self, issuer: IssuerIndex, now: Monotonic) -> Option<&SignalClock> {
        let mut required = self.of_issuer(issuer).flat_map(|signals| &signals.required);
        required.find(|clock| clock.is_stale(now)).map(AsRef::as_ref)
    }

    fn of_issuer(&self, issuer: IssuerIndex) -> impl Iterator<Item = &IssuerSignals> {
        self.signals.get(usize::from(issuer.0)).into_iter()
    }

    /// Notes the subject of a token whose signature was found true just now.
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
