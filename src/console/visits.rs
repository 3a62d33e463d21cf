//! The visits of signed-in visitors, identified by a cookie. Only in memory: after a restart,
//! everybody must sign in again.

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

/// A visit ends after this time without a request.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A visit ends at this age, even if it is in use.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// The most concurrent visits. A further one replaces the one that has been unused for longest.
const MOST: usize = 1_000;
/// How many submitted forms a visit remembers.
const SENT: usize = 64;

/// Who signed in. This is looked up again for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignedIn {
    /// The holder of the admin token with this digest.
    Token([u8; 32]),
    /// A user of the authority; the stamp identifies the password that was used.
    User { id: Arc<str>, stamp: PasswordStamp },
}

/// A visit, as one request sees it.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) who: SignedIn,
    /// The CSRF token that every form of this visit contains.
    pub(super) csrf: Arc<str>,
    began: Monotonic,
    seen: Monotonic,
    sent: VecDeque<Box<str>>,
}

/// All visits, by the digest of the cookie value, so that reading the table does not reveal a usable cookie.
#[derive(Default)]
pub(super) struct Visits(Mutex<HashMap<[u8; 32], Visit>>);

impl Visits {
    fn table(&self) -> MutexGuard<'_, HashMap<[u8; 32], Visit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a visit, and returns the value for its cookie.
    ///
    /// # Errors
    /// When the random number generator fails.
    pub(super) fn begin(&self, who: SignedIn, now: Monotonic) -> Result<String, Unspecified> {
        let (cookie, csrf) = (random()?, random()?.into());
        let mut table = self.table();
        table.retain(|_, visit| visit.is_valid(now));
        if table.len() >= MOST
            && let Some(oldest) = table.iter().min_by_key(|(_, visit)| visit.seen).map(|(key, _)| *key)
        {
            table.remove(&oldest);
        }
        table.insert(key(&cookie), Visit { who, csrf, began: now, seen: now, sent: VecDeque::new() });
        Ok(cookie)
    }

    /// Finds the visit of a cookie, and records that it was used.
    pub(super) fn find(&self, cookie: &str, now: Monotonic) -> Option<Visit> {
        let mut table = self.table();
        let visit = table.get_mut(&key(cookie)).filter(|visit| visit.is_valid(now))?;
        visit.seen = now;
        Some(visit.clone())
    }

    /// Finds the visit of a cookie without recording a use: a page that only updates itself keeps nobody signed in.
    pub(super) fn look(&self, cookie: &str, now: Monotonic) -> Option<Visit> {
        self.table().get(&key(cookie)).filter(|visit| visit.is_valid(now)).cloned()
    }

    /// Ends a visit.
    pub(super) fn end(&self, cookie: &str) {
        self.table().remove(&key(cookie));
    }

    /// Whether a form is submitted for the first time. A page that shows a secret is the response to a form;
    /// reloading it submits the form again, and must not create another secret.
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
    fn is_valid(&self, now: Monotonic) -> bool {
        now.since(self.seen) < IDLE && now.since(self.began) < LONGEST
    }

    /// Whether this is the visit's CSRF token.
    pub(super) fn is_own(&self, csrf: &str) -> bool {
        verify_slices_are_equal(self.csrf.as_bytes(), csrf.as_bytes()).is_ok()
    }
}

fn key(cookie: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    key
}

/// Generates 256 random bits as text.
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
