//! Signed-in visits, identified by a cookie. In memory only: after a restart, everybody must sign in again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::authority::PasswordStamp;
use crate::time::Monotonic;

/// A visit ends when nothing was asked for as long as this.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A visit ends at this age, however much it is used.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// Visits at a time. One more takes the place of the one that was unused for longest.
const MOST: usize = 1_000;
/// Forms that a visit remembers to have been sent.
const SENT: usize = 64;

/// Who signed in, as it is looked up again for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignedIn {
    /// With the admin token of this digest.
    Token([u8; 32]),
    /// As a user of the authority, with the password that had this stamp.
    User { id: Arc<str>, stamp: PasswordStamp },
}

/// A visit, as one request sees it.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) who: SignedIn,
    /// What every form of this visit carries.
    pub(super) csrf: Arc<str>,
    began: Monotonic,
    seen: Monotonic,
    sent: VecDeque<Box<str>>,
}

/// All visits, by the digest of what the cookie holds: nobody who reads the table can use it.
#[derive(Default)]
pub(super) struct Visits(Mutex<HashMap<[u8; 32], Visit>>);

impl Visits {
    fn table(&self) -> MutexGuard<'_, HashMap<[u8; 32], Visit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a visit; what its cookie holds.
    ///
    /// # Errors
    /// When the random number generator fails.
    pub(super) fn begin(&self, who: SignedIn, now: Monotonic) -> Result<String, Unspecified> {
        let (cookie, csrf) = (random()?, random()?.into());
        let mut table = self.table();
        table.retain(|_, visit| visit.is_on(now));
        if table.len() >= MOST
            && let Some(oldest) = table.iter().min_by_key(|(_, visit)| visit.seen).map(|(key, _)| *key)
        {
            table.remove(&oldest);
        }
        table.insert(key(&cookie), Visit { who, csrf, began: now, seen: now, sent: VecDeque::new() });
        Ok(cookie)
    }

    /// The visit of a cookie, which is used by that.
    pub(super) fn find(&self, cookie: &str, now: Monotonic) -> Option<Visit> {
        let mut table = self.table();
        let visit = table.get_mut(&key(cookie)).filter(|visit| visit.is_on(now))?;
        visit.seen = now;
        Some(visit.clone())
    }

    /// The visit of a cookie, which is not used by that: a page that only updates itself keeps nobody signed in.
    pub(super) fn look(&self, cookie: &str, now: Monotonic) -> Option<Visit> {
        self.table().get(&key(cookie)).filter(|visit| visit.is_on(now)).cloned()
    }

    /// Ends a visit.
    pub(super) fn end(&self, cookie: &str) {
        self.table().remove(&key(cookie));
    }

    /// Whether a form is sent for the first time. A page that shows a secret is the answer to a form; reloading it sends
    /// that again, and must not make another secret.
    pub(super) fn is_first(&self, cookie: &str, form: &str) -> bool {
        let mut table = self.table();
        let Some(visit) = table.get_mut(&key(cookie)) else { return false };
        if visit.sent.iter().any(|sent| **sent == *form) {
            return false;
        }
        if visit.sent.len() == SENT {
            visit.sent.pop_front();
        }
        visit.sent.push_back(form.into());
        true
    }
}

impl Visit {
    fn is_on(&self, now: Monotonic) -> bool {
        now.since(self.seen) < IDLE && now.since(self.began) < LONGEST
    }

    /// Whether a form carries this visit's token.
    pub(super) fn is_own(&self, csrf: &str) -> bool {
        verify_slices_are_equal(self.csrf.as_bytes(), csrf.as_bytes()).is_ok()
    }
}

fn key(cookie: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    key
}

/// 256 random bits as text.
///
/// # Errors
/// When the random number generator fails.
pub(super) fn random() -> Result<String, Unspecified> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: SignedIn = SignedIn::Token([7; 32]);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_millis(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_visit_ends_when_it_is_idle_and_when_it_is_old_and_when_it_is_ended() {
        let visits = Visits::default();
        let cookie = visits.begin(TOKEN, at(0)).unwrap();
        assert!(visits.find(&cookie, at(1_799)).is_some(), "used");
        assert!(visits.look(&cookie, at(1_799 + 1_799)).is_some(), "only looked at");
        assert!(visits.find(&cookie, at(1_799 + 1_800)).is_none(), "idle since its last use");
        let cookie = visits.begin(TOKEN, at(0)).unwrap();
        for minute in 0..720 {
            assert!(visits.find(&cookie, at(minute * 60)).is_some(), "minute {minute}");
        }
        assert!(visits.find(&cookie, at(12 * 3_600)).is_none(), "old, however much it was used");
        let (one, other) = (visits.begin(TOKEN, at(0)).unwrap(), visits.begin(TOKEN, at(0)).unwrap());
        visits.end(&one);
        assert!(visits.find(&one, at(1)).is_none() && visits.find(&other, at(1)).is_some());
        assert!(visits.find("", at(1)).is_none());
    }

    #[test]
    fn one_visit_too_many_ends_the_one_that_was_unused_for_longest() {
        let visits = Visits::default();
        let cookies: Vec<String> = (0..MOST).map(|_| visits.begin(TOKEN, at(0)).unwrap()).collect();
        for cookie in cookies.iter().skip(1) {
            assert!(visits.find(cookie, at(1)).is_some());
        }
        let last = visits.begin(TOKEN, at(2)).unwrap();
        assert!(visits.find(&cookies[0], at(3)).is_none());
        assert!(visits.find(&cookies[1], at(3)).is_some() && visits.find(&last, at(3)).is_some());
    }

    #[test]
    fn a_form_counts_once_and_only_with_the_token_of_its_visit() {
        let visits = Visits::default();
        let (one, other) = (visits.begin(TOKEN, at(0)).unwrap(), visits.begin(TOKEN, at(0)).unwrap());
        assert!(visits.is_first(&one, "form") && !visits.is_first(&one, "form"));
        assert!(visits.is_first(&other, "form"), "that of another visit");
        for number in 0..SENT {
            assert!(visits.is_first(&one, &number.to_string()));
        }
        let (one, other) = (visits.find(&one, at(1)).unwrap(), visits.find(&other, at(1)).unwrap());
        assert!(one.is_own(&one.csrf) && !one.is_own(&other.csrf) && !one.is_own(""));
    }
}
