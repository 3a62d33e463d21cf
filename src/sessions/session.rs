//! One token in use: its last use on both clocks, and whether further uses count.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use super::limits::SessionLimits;
use super::names::SessionNames;
use super::verdict::{IdleCase, Idleness, Stamp};
use crate::identity::{SubjectKey, TokenKey, TokenNames};
use crate::state::record::SessionRow;
use crate::time::{Monotonic, Now, Timestamp};

/// A token in use, shared by the requests and streams that use it.
///
/// The last use on the monotonic clock and the flags share one atomic word, so that "not idle" and "used"
/// cannot interleave wrongly: a use is judged and recorded in one step.
#[derive(Debug)]
pub struct Session {
    token: TokenKey,
    issuer: Arc<str>,
    /// The token's own key if the token has no subject.
    subject: SubjectKey,
    client: Option<Arc<str>>,
    /// Other names by which events may refer to it.
    names: Option<Arc<TokenNames>>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    first_used_at: Timestamp,
    /// The last use in milliseconds of the monotonic clock, shifted left, with the flags in the low bits.
    word: AtomicI64,
    /// The last use in milliseconds of the wall clock; at least the time of issue.
    wall: AtomicI64,
    /// When the table last saw it in use: the low 32 bits of monotonic milliseconds.
    touched: AtomicU32,
    /// When it was created here, in whole seconds of the monotonic clock.
    made: i32,
}

/// Permanently idle: no use counts.
const OVER: i64 = 1;
/// Used since it was last saved.
const UNSAVED: i64 = 2;
/// No longer in the table: the next use must enter it again.
const EVICTED: i64 = 4;
const MARKS: i64 = OVER | UNSAVED | EVICTED;
const SHIFT: u32 = 3;
/// Size of the two reference counters of an `Arc`.
const SHARED: usize = 16;

/// The facts of a token when it is first seen.
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
    /// Its other names.
    pub names: Option<&'a Arc<TokenNames>>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// The earliest time by which it is known to have been issued: `iat`, or its first use here if that was
    /// earlier.
    pub known_since: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// The outcome of a use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UseResult {
    /// The use does not count: the token is idle.
    Idle,
    /// The use does not count: the session left the table.
    Evicted,
    /// The use counts, and is the first since the session was last saved; carries the time since the previous
    /// use.
    First(Duration),
    /// The use counts.
    Again,
}

impl Session {
    /// Creates the session of a token that is used for the first time. `now` carries the wall clock that the
    /// table uses, and `first` the local one.
    pub(super) fn new(
        introduction: &Introduction<'_>,
        names: &SessionNames,
        first: Timestamp,
        now: Now,
    ) -> Self {
        let mark = (now.monotonic.as_millis() << SHIFT) | UNSAVED;
        Self {
            token: introduction.token,
            issuer: names.share(introduction.issuer),
            subject: introduction.subject.unwrap_or(SubjectKey(introduction.token.0)),
            client: introduction.client.map(|client| names.share(client)),
            names: introduction.names.map(Arc::clone),
            issued_at: introduction.issued_at,
            expires_at: introduction.expires_at,
            first_used_at: first.max(introduction.known_since),
            word: AtomicI64::new(mark),
            wall: AtomicI64::new(introduction.issued_at.max(now.wall).as_millis()),
            touched: AtomicU32::new(low(now.monotonic)),
            made: seconds(now.monotonic),
        }
    }

    /// Restores a saved session.
    pub(super) fn from_row(row: &SessionRow, names: &SessionNames, now: Monotonic) -> Self {
        let last = row.last_used_at.max(row.issued_at);
        Self {
            token: row.token,
            issuer: names.share(&row.issuer),
            subject: row.subject.unwrap_or(SubjectKey(row.token.0)),
            client: row.client.as_ref().map(|client| names.share(client)),
            names: row.names.clone(),
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            first_used_at: row.first_used_at,
            word: AtomicI64::new(row.last_used_monotonic.as_millis() << SHIFT),
            wall: AtomicI64::new(last.as_millis()),
            touched: AtomicU32::new(low(row.last_used_monotonic)),
            made: seconds(now),
        }
    }

    /// The token's key.
    #[must_use]
    pub fn token(&self) -> TokenKey {
        self.token
    }

    /// The token's issuer.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token's subject.
    #[must_use]
    pub fn subject(&self) -> Option<SubjectKey> {
        (self.subject.0 != self.token.0).then_some(self.subject)
    }

    /// The first use: the token was certainly issued by then, whatever `iat` says.
    #[must_use]
    pub fn first_used_at(&self) -> Timestamp {
        self.first_used_at
    }

    /// The first use, if it precedes `iat` because the issuer's clock is ahead; other replicas cannot know
    /// that.
    pub(super) fn first_use_before_issue(&self) -> Option<Timestamp> {
        (self.first_used_at < self.issued_at).then_some(self.first_used_at)
    }

    /// The last use on the wall clock.
    #[must_use]
    pub fn last_used_at(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::Acquire))
    }

    /// The last use on the monotonic clock.
    #[must_use]
    pub fn last_used(&self) -> Monotonic {
        monotonic(self.word.load(Ordering::Acquire))
    }

    /// Heap memory it owns besides its own size.
    pub(super) fn heap_size(&self) -> usize {
        let client = self.client.as_ref().map_or(0, |client| client.len());
        client + self.names.as_ref().map_or(0, |names| SHARED + names.size())
    }

    /// Whether its token expired more than `leeway` ago.
    pub(super) fn is_expired(&self, now: Timestamp, leeway: Duration) -> bool {
        now.since(self.expires_at) > leeway
    }

    /// The row to save.
    #[must_use]
    pub fn row(&self) -> SessionRow {
        SessionRow {
            token: self.token,
            issuer: Arc::clone(&self.issuer),
            subject: self.subject(),
            client: self.client.clone(),
            issued_at: self.issued_at,
            first_used_at: self.first_used_at,
            last_used_at: self.last_used_at(),
            last_used_monotonic: self.last_used(),
            expires_at: self.expires_at,
            names: self.names.clone(),
        }
    }

    /// Whether it left the table.
    pub(crate) fn is_evicted(&self) -> bool {
        self.word.load(Ordering::Acquire) & EVICTED != 0
    }

    /// Returns what a verdict needs. The session may change right after.
    pub(super) fn stamp(&self) -> Stamp {
        // Load the word last: a use writes it last, so a word that shows a use comes with its wall clock.
        let word = self.word.load(Ordering::Acquire);
        self.stamp_of(word)
    }

    fn stamp_of(&self, word: i64) -> Stamp {
        Stamp {
            wall: self.last_used_at(),
            monotonic: monotonic(word),
            is_over: word & OVER != 0,
            is_evicted: word & EVICTED != 0,
        }
    }

    /// Counts a use at `case.now`, if the token is still in use.
    pub(super) fn use_at(&self, case: &IdleCase, limits: &SessionLimits) -> UseResult {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word & OVER != 0 {
                return UseResult::Idle;
            }
            if word & EVICTED != 0 {
                return UseResult::Evicted;
            }
            let case = IdleCase { tracked: Some(self.stamp_of(word)), ..*case };
            if case.judge(limits) != Idleness::InUse {
                return UseResult::Idle;
            }
            // Stored before the word, so that nobody sees the use without it and finds the token idle by the
            // wall clock.
            self.wall.fetch_max(case.now.wall.as_millis(), Ordering::AcqRel);
            let last = monotonic(word);
            let next = last.max(case.now.monotonic).as_millis() << SHIFT | UNSAVED;
            if next == word {
                return UseResult::Again;
            }
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if word & UNSAVED != 0 => return UseResult::Again,
                Ok(_) => return UseResult::First(case.now.monotonic.since(last)),
                Err(current) => word = current,
            }
        }
    }

    /// Records a use on another replica.
    pub(super) fn learn(&self, at: Stamp) {
        self.wall.fetch_max(at.wall.as_millis(), Ordering::AcqRel);
        let learn = |word: i64| {
            let last = monotonic(word).max(at.monotonic);
            Some(last.as_millis() << SHIFT | word & MARKS)
        };
        // The closure always returns `Some`, so the update cannot fail.
        _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, learn);
    }

    /// Whether the table has not seen it in use for `fraction`, so that it must be touched now.
    pub(super) fn is_due_for_touch(&self, now: Monotonic, fraction: Duration) -> bool {
        let (touched, now) = (self.touched.load(Ordering::Relaxed), low(now));
        let since = now.wrapping_sub(touched);
        // A negative difference: that clock was read earlier.
        let passed = if since > u32::MAX / 2 { 0 } else { since };
        u128::from(passed) >= fraction.as_millis()
    }

    /// Records that the table has seen it in use.
    pub(super) fn touch(&self, now: Monotonic) {
        self.touched.store(low(now), Ordering::Relaxed);
    }

    /// Clears the unsaved flag before saving; a later use sets it again.
    pub(super) fn clear_unsaved(&self) {
        self.word.fetch_and(!UNSAVED, Ordering::AcqRel);
    }

    /// Sets the unsaved flag; returns false if it was set already.
    pub(super) fn mark_unsaved(&self) -> bool {
        self.word.fetch_or(UNSAVED, Ordering::AcqRel) & UNSAVED == 0
    }

    /// Ends it if it is idle by the monotonic clock at `case.now`, checking and ending in one atomic step;
    /// returns whether it is over.
    pub(super) fn end_if_idle(&self, case: &IdleCase, limits: &SessionLimits) -> bool {
        let end = |word: i64| {
            let case = IdleCase { tracked: Some(self.stamp_of(word)), ..*case };
            case.is_idle_for_good(limits).then_some(word | OVER)
        };
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, end) {
            Ok(_ended) => true,
            Err(word) => word & OVER != 0,
        }
    }

    /// Ends it: no further use counts.
    pub(super) fn end(&self) {
        self.word.fetch_or(OVER, Ordering::AcqRel);
    }

    /// Marks it as evicted if it need not be kept, checking and marking in one atomic step; returns whether
    /// it did. An idle session is kept while its token would pass without it, that is, while the wall clock
    /// is behind.
    pub(super) fn evict_if_done(&self, limits: &SessionLimits, now: Now) -> bool {
        let age = now.monotonic.since(Monotonic::from_millis(i64::from(self.made) * 1_000));
        let is_dead = limits.is_dead(self.expires_at.since(self.issued_at), age);
        let is_old = limits.is_idle(now.wall.since(self.issued_at));
        let is_idle = |word| is_old && limits.is_idle(now.monotonic.since(monotonic(word)));
        let evict = |word: i64| (is_dead || is_idle(word)).then_some(word | EVICTED);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, evict).is_ok()
    }

    /// Marks it as evicted.
    pub(super) fn mark_evicted(&self) {
        self.word.fetch_or(EVICTED, Ordering::AcqRel);
    }
}

fn monotonic(word: i64) -> Monotonic {
    Monotonic::from_millis(word >> SHIFT)
}

fn seconds(moment: Monotonic) -> i32 {
    // A time outside the range, before 0 or after 68 years, counts as later, so that the session is kept
    // longer.
    i32::try_from(moment.as_millis().div_euclid(1_000)).unwrap_or(i32::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low half is what is wanted")]
fn low(moment: Monotonic) -> u32 {
    moment.as_millis() as u32
}

#[cfg(test)]
mod tests;
