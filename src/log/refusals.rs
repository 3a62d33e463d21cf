//! The latest rejected requests, for operators: a bounded ring in memory, without tokens.
//!
//! Workers add to it without waiting; only operators read it, and a restart empties it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::access::{AccessRecord, Decision, clip, short_hex};
use crate::time::Timestamp;

/// How many requests are kept.
const KEPT: usize = 1_000;
/// Maximum length of a path in bytes.
const MAX_PATH: usize = 512;
/// Maximum length of all other texts in bytes.
const MAX_TEXT: usize = 128;

/// A request that was rejected, or would have been if its route were not in shadow mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As in `X-Request-Id`.
    pub request_id: Box<str>,
    /// The time of the response.
    pub at: Timestamp,
    /// The decision.
    pub decision: Decision,
    /// The reason; `None` for a request that exceeded a limit or violated HTTP.
    pub reason: Option<&'static str>,
    /// The status of the response.
    pub status: u16,
    /// The method as received.
    pub method: Box<str>,
    /// The path without its query.
    pub path: Option<Box<str>>,
    /// The requested host.
    pub host: Option<Box<str>>,
    /// The route's pattern.
    pub route: Option<Box<str>>,
    /// The configured issuer that the token names.
    pub issuer: Option<Box<str>>,
    /// The client of the token.
    pub client: Option<Box<str>>,
    /// Whether the client comes from an unverified token.
    pub is_client_claimed: bool,
    /// The first 12 hexadecimal digits of the token's identity.
    pub token: Option<Box<str>>,
    /// The first 12 hexadecimal digits of the subject's hash.
    pub subject: Option<Box<str>>,
    /// The key id that the token names.
    pub kid: Option<Box<str>>,
    /// The client's address.
    pub client_address: IpAddr,
}

/// The latest rejected requests; cheap to clone, shared by the workers.
#[derive(Clone)]
pub struct Refusals(Arc<Ring>);

struct Ring {
    /// The newest is last.
    latest: Mutex<VecDeque<Arc<Refusal>>>,
    missed: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        let latest = Mutex::new(VecDeque::with_capacity(KEPT));
        Self(Arc::new(Ring { latest, missed: AtomicU64::new(0) }))
    }
}

impl Refusals {
    /// Adds a request and evicts the oldest. Never waits: if another thread is using the ring, the request is
    /// only counted.
    pub fn add(&self, record: &AccessRecord<'_>, at: Timestamp) {
        let refusal = Arc::new(Refusal::new(record, at));
        let mut latest = match self.0.latest.try_lock() {
            Ok(latest) => latest,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.0.missed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let evicted = if latest.len() == KEPT { latest.pop_front() } else { None };
        latest.push_back(refusal);
        drop(latest);
        // Freed after the lock is released.
        drop(evicted);
    }

    /// The newest ones, newest first, at most `most`, with this reason if one is given.
    #[must_use]
    pub fn latest(&self, most: usize, reason: Option<&str>) -> Vec<Arc<Refusal>> {
        let latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |refusal: &&Arc<Refusal>| reason.is_none_or(|reason| refusal.reason == Some(reason));
        latest.iter().rev().filter(wanted).take(most).cloned().collect()
    }

    /// The newest entry with this request id.
    #[must_use]
    pub fn find(&self, request_id: &str) -> Option<Arc<Refusal>> {
        let latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().rev().find(|refusal| *refusal.request_id == *request_id).cloned()
    }

    /// How many were not kept because the ring was in use.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals").finish_non_exhaustive()
    }
}

impl Refusal {
    fn new(record: &AccessRecord<'_>, at: Timestamp) -> Self {
        let text = |value: Option<&str>| value.map(|value| clip(value, MAX_TEXT).into());
        let path = record.path.and_then(|path| path.split(['?', '#']).next());
        let digits = record.token.map(short_hex);
        Self {
            request_id: clip(record.request_id, MAX_TEXT).into(),
            at,
            decision: record.decision,
            reason: record.reason,
            status: record.status,
            method: clip(record.method, MAX_TEXT).into(),
            path: path.map(|path| clip(path, MAX_PATH).into()),
            host: text(record.host),
            route: text(record.route),
            issuer: text(record.issuer),
            client: text(record.client.or(record.claimed_client)),
            is_client_claimed: record.client.is_none() && record.claimed_client.is_some(),
            token: text(digits.as_ref().and_then(|digits| std::str::from_utf8(digits).ok())),
            subject: text(record.subject),
            kid: text(record.kid),
            client_address: record.client_address,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use http::Version;

    use super::*;

    fn record<'a>(request_id: &'a str, path: &'a str, reason: &'static str) -> AccessRecord<'a> {
        AccessRecord {
            request_id,
            trace_id: None,
            method: "GET",
            route: Some("/{*rest}"),
            path: Some(path),
            status: 401,
            decision: Decision::Deny,
            reason: Some(reason),
            issuer: None,
            kid: None,
            token: Some(&[0xab; 32]),
            subject: Some("0123456789ab"),
            client: None,
            claimed: None,
            claimed_client: Some("app"),
            client_address: Ipv4Addr::LOCALHOST.into(),
            host: Some("api.test"),
            user_agent: None,
            omitted: None,
            tls: None,
            bytes_in: None,
            bytes_out: 0,
            upstream_time: None,
            lasted: Duration::ZERO,
            ended_by: None,
            upstream: None,
            failure: None,
            cause: None,
            protocol: Version::HTTP_11,
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn the_newest_thousand_are_kept() {
        let refusals = Refusals::default();
        let ids: Vec<String> = (0..=KEPT).map(|number| number.to_string()).collect();
        for (number, id) in ids.iter().enumerate() {
            let reason = if number % 2 == 0 { "expired" } else { "idle" };
            refusals.add(&record(id, "/a", reason), Timestamp::from_secs(1));
        }
        let shown = |found: Vec<Arc<Refusal>>| -> Vec<String> {
            found.iter().map(|refusal| refusal.request_id.to_string()).collect()
        };
        assert_eq!(refusals.latest(usize::MAX, None).len(), KEPT);
        assert_eq!(shown(refusals.latest(3, None)), ["1000", "999", "998"]);
        assert_eq!(shown(refusals.latest(2, Some("idle"))), ["999", "997"]);
        assert_eq!(refusals.latest(2, Some("missing")), []);
        assert!(refusals.find("0").is_none(), "the oldest was evicted");
        assert!(refusals.find("1").is_some() && refusals.find("1000").is_some());
        assert_eq!(refusals.missed(), 0);
    }

    #[test]
    fn a_refusal_holds_no_query_and_no_more_than_a_bounded_text() {
        let refusals = Refusals::default();
        let long = format!("/{}?access_token=secret", "é".repeat(MAX_PATH));
        refusals.add(&record(&"i".repeat(MAX_TEXT + 1), &long, "expired"), Timestamp::from_secs(7));
        refusals.add(&record("short", "/a?b#c", "expired"), Timestamp::from_secs(8));
        let found = refusals.latest(2, None);
        let path = found[1].path.as_deref().unwrap();
        assert!(path.len() <= MAX_PATH && path.len() > MAX_PATH - 2 && !path.contains("secret"));
        assert_eq!(found[1].request_id.len(), MAX_TEXT);
        assert_eq!((found[0].path.as_deref(), found[0].at), (Some("/a"), Timestamp::from_secs(8)));
        assert_eq!(found[0].token.as_deref(), Some("abababababab"));
        assert_eq!((found[0].client.as_deref(), found[0].is_client_claimed), (Some("app"), true));
    }

    #[test]
    fn a_worker_does_not_wait_for_the_ring() {
        let refusals = Refusals::default();
        let held = refusals.0.latest.lock().unwrap();
        refusals.add(&record("one", "/a", "expired"), Timestamp::from_secs(1));
        drop(held);
        refusals.add(&record("two", "/a", "expired"), Timestamp::from_secs(1));
        assert_eq!((refusals.missed(), refusals.latest(9, None).len()), (1, 1));
    }
}
