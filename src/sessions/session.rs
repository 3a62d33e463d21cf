//! One token in use: when it was last, and whether it is over for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::identity::{SubjectKey, TokenKey};
use crate::state::record::SessionRow;
use crate::time::Timestamp;

/// A token in use, shared by the requests and streams that use it.
///
/// Its last use and the two marks live in one word, so that "not idle" and "used" cannot interleave wrongly: a use that
/// comes after the token was found idle does not count.
#[derive(Debug)]
pub struct Session {
    token: TokenKey,
    issuer: Arc<str>,
    subject: Option<SubjectKey>,
    client: Option<Arc<str>>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    first_used_at: AtomicI64,
    /// Milliseconds of the last use, then [`UNSAVED`], then [`OVER`].
    word: AtomicI64,
}

/// Found idle, or taken from the table: final.
const OVER: i64 = 1;
/// Used since it was last saved.
const UNSAVED: i64 = 2;
const SHIFT: u32 = 2;

/// What a token tells when it is first seen.
#[derive(Debug, Clone, Copy)]
pub struct Introduction<'a> {
    /// The token.
    pub token: TokenKey,
    /// `iss`.
    pub issuer: &'a Arc<str>,
    /// Its subject.
    pub subject: Option<SubjectKey>,
    /// Its client.
    pub client: Option<&'a Arc<str>>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// What came of a use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Used {
    /// It does not count: the token was over.
    Over,
    /// The first since the session was last saved, and how long after the use before.
    First(Duration),
    /// It counts.
    Again,
}

impl Session {
    /// A token seen for the first time: its last use is its issue.
    pub(super) fn new(introduction: &Introduction<'_>) -> Self {
        Self {
            token: introduction.token,
            issuer: Arc::clone(introduction.issuer),
            subject: introduction.subject,
            client: introduction.client.cloned(),
            issued_at: introduction.issued_at,
            expires_at: introduction.expires_at,
            first_used_at: AtomicI64::new(0),
            word: AtomicI64::new(introduction.issued_at.as_millis() << SHIFT),
        }
    }

    /// As it was saved.
    pub(super) fn from_row(row: SessionRow) -> Self {
        Self {
            token: row.token,
            issuer: row.issuer,
            subject: row.subject,
            client: row.client,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            first_used_at: AtomicI64::new(row.first_used_at.as_millis()),
            word: AtomicI64::new(row.last_used_at.as_millis() << SHIFT),
        }
    }

    /// Which token.
    #[must_use]
    pub fn token(&self) -> TokenKey {
        self.token
    }

    /// Its subject.
    #[must_use]
    pub fn subject(&self) -> Option<SubjectKey> {
        self.subject
    }

    /// Its last use; its issue before the first.
    #[must_use]
    pub fn last_used_at(&self) -> Timestamp {
        Timestamp::from_millis(self.word.load(Ordering::Acquire) >> SHIFT)
    }

    /// As it would be saved now; `None` before its first use.
    #[must_use]
    pub fn row(&self) -> Option<SessionRow> {
        let first = self.first_used_at.load(Ordering::Acquire);
        (first != 0).then(|| SessionRow {
            token: self.token,
            issuer: Arc::clone(&self.issuer),
            subject: self.subject,
            client: self.client.clone(),
            issued_at: self.issued_at,
            first_used_at: Timestamp::from_millis(first),
            last_used_at: self.last_used_at(),
            expires_at: self.expires_at,
        })
    }

    /// Whether it was used within `idle`, the limit included. Once false, false for good.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp, idle: Duration) -> bool {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word & OVER != 0 {
                return false;
            }
            if is_recent(word, now, idle) {
                return true;
            }
            // Final before anybody is told, unless it was used in this very moment.
            match self.word.compare_exchange_weak(word, word | OVER, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(current) => word = current,
            }
        }
    }

    /// As [`Self::is_in_force`], without a consequence: a token that seems idle may still be used.
    pub(super) fn seems_in_force(&self, now: Timestamp, idle: Duration) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & OVER == 0 && is_recent(word, now, idle)
    }

    /// Whether it was found idle, or taken from the table.
    pub(super) fn is_over(&self) -> bool {
        self.word.load(Ordering::Acquire) & OVER != 0
    }

    /// Whether a request was forwarded with it.
    pub(super) fn was_used(&self) -> bool {
        self.first_used_at.load(Ordering::Relaxed) != 0
    }

    /// It was used elsewhere.
    pub(super) fn learn(&self, at: Timestamp) {
        let learn = |word: i64| Some((word >> SHIFT).max(at.as_millis()) << SHIFT | word & (OVER | UNSAVED));
        // A closure that always answers never fails.
        _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, learn);
    }

    /// A request was forwarded with it, or bytes flowed on a stream it opened.
    pub(super) fn used(&self, now: Timestamp) -> Used {
        let mut word = self.word.load(Ordering::Acquire);
        // Before the use counts, so that whoever saves it finds both; a second thread finds it set.
        if word & OVER == 0 && self.first_used_at.load(Ordering::Relaxed) == 0 {
            let _first =
                self.first_used_at.compare_exchange(0, now.as_millis(), Ordering::AcqRel, Ordering::Relaxed);
        }
        loop {
            if word & OVER != 0 {
                return Used::Over;
            }
            let next = (word >> SHIFT).max(now.as_millis()) << SHIFT | UNSAVED;
            if next == word {
                return Used::Again;
            }
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if word & UNSAVED != 0 => return Used::Again,
                Ok(_) => return Used::First(now.since(Timestamp::from_millis(word >> SHIFT))),
                Err(current) => word = current,
            }
        }
    }

    /// Clears the mark of being unsaved: a use from now on sets it again.
    pub(super) fn saving(&self) {
        self.word.fetch_and(!UNSAVED, Ordering::AcqRel);
    }

    /// Sets the mark again; false when it was set.
    pub(super) fn not_saved(&self) -> bool {
        self.word.fetch_or(UNSAVED, Ordering::AcqRel) & UNSAVED == 0
    }

    /// From now on no use counts.
    pub(super) fn end(&self) {
        self.word.fetch_or(OVER, Ordering::AcqRel);
    }

    /// Whether its token expired more than `leeway` ago.
    pub(super) fn is_expired(&self, now: Timestamp, leeway: Duration) -> bool {
        now.since(self.expires_at) > leeway
    }

    /// How long ago its token would have been used last if this session were not known.
    ///
    /// That is what decides when it may be forgotten: `iat` may lie ahead of the first use, because clocks differ.
    pub(super) fn unused_for(&self, now: Timestamp) -> Duration {
        now.since(self.last_used_at().max(self.issued_at))
    }
}

/// Whether the last use lies within `idle`, the limit included.
fn is_recent(word: i64, now: Timestamp, idle: Duration) -> bool {
    now.since(Timestamp::from_millis(word >> SHIFT)) <= idle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Key;

    const IDLE: Duration = Duration::from_secs(60);

    fn session(issued_at: i64) -> Session {
        Session::new(&Introduction {
            token: TokenKey(Key::from_bytes([1; 16])),
            issuer: &"https://a/".into(),
            subject: None,
            client: None,
            issued_at: Timestamp::from_millis(issued_at),
            expires_at: Timestamp::from_millis(issued_at + 3_600_000),
        })
    }

    const fn ms(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_limit_is_exact_to_the_millisecond() {
        assert!(session(1_000).is_in_force(ms(61_000), IDLE));
        assert!(!session(1_000).is_in_force(ms(61_001), IDLE));
        let used = session(1_000);
        assert_eq!(used.used(ms(31_000)), Used::First(Duration::from_secs(30)));
        assert!(used.is_in_force(ms(91_000), IDLE));
        assert!(!used.is_in_force(ms(91_001), IDLE));
    }

    #[test]
    fn what_was_found_idle_stays_so() {
        let session = session(1_000);
        assert!(!session.is_in_force(ms(61_001), IDLE));
        // Judged in time on another thread, forwarded late.
        assert_eq!(session.used(ms(61_000)), Used::Over);
        assert!(!session.is_in_force(ms(61_000), IDLE));
        assert!(!session.is_in_force(ms(1_000), Duration::MAX));
    }

    #[test]
    fn the_last_use_only_moves_forward() {
        let session = session(1_000);
        assert_eq!(session.used(ms(9_000)), Used::First(Duration::from_secs(8)));
        assert_eq!(session.used(ms(5_000)), Used::Again);
        assert_eq!(session.last_used_at(), ms(9_000));
        assert_eq!(session.row().map(|row| row.first_used_at), Some(ms(9_000)));
    }

    #[test]
    fn a_use_while_saving_is_saved_again() {
        let session = session(1_000);
        assert_eq!(session.used(ms(2_000)), Used::First(Duration::from_secs(1)));
        session.saving();
        assert_eq!(session.last_used_at(), ms(2_000));
        assert_eq!(session.used(ms(2_000)), Used::First(Duration::ZERO));
        assert!(!session.not_saved());
    }

    #[test]
    fn a_token_from_ahead_is_kept_until_its_issue_is_idle_too() {
        let session = session(30_000);
        assert_eq!(session.used(ms(1_000)), Used::First(Duration::ZERO));
        assert_eq!(session.last_used_at(), ms(30_000));
        assert_eq!(session.unused_for(ms(90_000)), IDLE);
    }
}
