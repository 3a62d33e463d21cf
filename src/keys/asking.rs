//! Shared fetches of keys: who may trigger one, who waits for one, and what it did not find.
//!
//! This module knows `kid`s and times, but neither keys nor their sources. Its lock is taken only for a `kid`
//! without a key, never for a request with a known one. An invalid signature also triggers a fetch; nothing
//! is remembered about it, because the cooldown alone limits the fetches.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::time::Monotonic;

/// How many unknown `kid`s are remembered. Beyond that, a flood may wait for the shared fetch, but never
/// causes another.
const REMEMBERED: usize = 1024;
/// No fetch was ever requested.
const NEVER: i64 = i64::MIN;

/// State shared by requests on all threads and the one refresher.
#[derive(Debug)]
pub(super) struct Asking {
    cooldown: Duration,
    /// Whether a refresher runs; without one nobody waits.
    attached: AtomicBool,
    under_way: AtomicBool,
    /// When the last fetch that counts towards the cooldown began, in milliseconds.
    asked_at: AtomicI64,
    requested: Notify,
    /// Changes at the end of every fetch, to whether it succeeded.
    finished: watch::Sender<bool>,
    unknown: Mutex<HashMap<u64, Monotonic>>,
    hasher: RandomState,
}

/// A fetch in progress. Dropping it, for whatever reason, wakes all waiters.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    asking: &'a Asking,
    succeeded: bool,
}

/// Marks a refresher as running until dropped.
#[derive(Debug)]
pub(super) struct Attached<'a>(&'a Asking);

impl Asking {
    pub(super) fn new(cooldown: Duration) -> Self {
        Self {
            cooldown,
            attached: AtomicBool::new(false),
            under_way: AtomicBool::new(false),
            asked_at: AtomicI64::new(NEVER),
            requested: Notify::new(),
            finished: watch::Sender::new(false),
            unknown: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Whether a fetch may be requested: a refresher runs and the cooldown is over.
    pub(super) fn is_open(&self, now: Monotonic) -> bool {
        let asked_at = self.asked_at.load(Ordering::Acquire);
        let asked = Monotonic::from_millis(asked_at);
        self.attached.load(Ordering::Acquire) && (asked_at == NEVER || now >= asked.plus(self.cooldown))
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire)
    }

    /// Requests a fetch unless one is in progress.
    pub(super) fn request(&self) {
        if !self.is_under_way() {
            self.requested.notify_one();
        }
    }

    /// Waits until a fetch is requested.
    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// Subscribes to the end of every fetch from now on.
    pub(super) fn finished(&self) -> watch::Receiver<bool> {
        self.finished.subscribe()
    }

    pub(super) fn attach(&self) -> Attached<'_> {
        self.attached.store(true, Ordering::Release);
        Attached(self)
    }

    /// Starts a fetch; with `counts`, also the cooldown.
    pub(super) fn begin(&self, counts: bool, now: Monotonic) -> Fetch<'_> {
        // In this order: a request that sees the cooldown of this fetch must also see the fetch, so that it
        // can wait for it.
        self.under_way.store(true, Ordering::Release);
        if counts {
            self.asked_at.store(now.as_millis(), Ordering::Release);
        }
        Fetch { asking: self, succeeded: false }
    }

    /// Remembers that the last fetch did not provide `kid`.
    pub(super) fn remember(&self, kid: &str, now: Monotonic) {
        let kid = self.hasher.hash_one(kid);
        let mut unknown = self.unknown();
        if unknown.len() >= REMEMBERED {
            unknown.retain(|_, since| self.is_fresh(*since, now));
        }
        if unknown.len() < REMEMBERED {
            unknown.insert(kid, now);
        }
    }

    /// Whether `kid` was remembered within the cooldown.
    pub(super) fn remembers(&self, kid: &str, now: Monotonic) -> bool {
        let kid = self.hasher.hash_one(kid);
        self.unknown().get(&kid).is_some_and(|since| self.is_fresh(*since, now))
    }

    /// Forgets the `kid`s of a newly fetched set.
    pub(super) fn forget<'k>(&self, kids: impl Iterator<Item = &'k str>) {
        let mut unknown = self.unknown();
        for kid in kids {
            unknown.remove(&self.hasher.hash_one(kid));
        }
    }

    fn is_fresh(&self, since: Monotonic, now: Monotonic) -> bool {
        now < since.plus(self.cooldown)
    }

    fn unknown(&self) -> MutexGuard<'_, HashMap<u64, Monotonic>> {
        // Every change is a single call, so a panic elsewhere leaves no partial change.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch<'_> {
    pub(super) fn succeed(&mut self) {
        self.succeeded = true;
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.asking.under_way.store(false, Ordering::Release);
        self.asking.finished.send_replace(self.succeeded);
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.attached.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(30);

    fn at(secs: i64) -> Monotonic {
        Monotonic::from_millis(secs * 1000)
    }

    #[test]
    fn the_door_opens_again_after_the_cooldown() {
        let asking = Asking::new(COOLDOWN);
        assert!(!asking.is_open(at(100)), "without a refresher nobody may ask");
        let attached = asking.attach();
        assert!(asking.is_open(at(100)));
        drop(asking.begin(false, at(100)));
        assert!(asking.is_open(at(100)), "the regular interval does not start the cooldown");
        drop(asking.begin(true, at(100)));
        for (now, open) in [(100, false), (129, false), (130, true)] {
            assert_eq!(asking.is_open(at(now)), open, "at {now}");
        }
        drop(attached);
        assert!(!asking.is_open(at(500)));
    }

    #[test]
    fn a_fetch_that_is_dropped_releases_who_waits() {
        let asking = Asking::new(COOLDOWN);
        let mut finished = asking.finished();
        let fetch = asking.begin(true, at(1));
        assert!(asking.is_under_way());
        assert!(!finished.has_changed().unwrap());
        drop(fetch);
        assert!(!asking.is_under_way());
        assert!(finished.has_changed().unwrap());
        assert!(!*finished.borrow_and_update(), "dropped half way is not a success");
    }

    #[test]
    fn unknown_kids_are_remembered_for_the_cooldown_and_in_bounded_number() {
        let asking = Asking::new(COOLDOWN);
        asking.remember("a", at(100));
        assert!(asking.remembers("a", at(129)));
        assert!(!asking.remembers("a", at(130)));
        assert!(!asking.remembers("b", at(100)));
        asking.forget(["a"].into_iter());
        assert!(!asking.remembers("a", at(100)));
        for i in 0..5000 {
            asking.remember(&i.to_string(), at(200));
        }
        assert_eq!(asking.unknown().len(), REMEMBERED);
        asking.remember("late", at(200));
        assert!(!asking.remembers("late", at(200)), "full of fresh ones");
        asking.remember("later", at(230));
        assert!(asking.remembers("later", at(230)), "the old ones made room");
        assert_eq!(asking.unknown().len(), 1);
    }
}
