//! One token in use: its last use on both clocks, and whether further use still counts.

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
/// Its last use on the monotonic clock and the marks live in one word, so that "not idle" and "used" cannot interleave
/// wrongly: a use is judged and stamped in one step.
#[derive(Debug)]
pub struct Session {
    token: TokenKey,
    issuer: Arc<str>,
    /// The token's own key where it has no subject.
    subject: SubjectKey,
    client: Option<Arc<str>>,
    /// What else events may name it by.
    names: Option<Arc<TokenNames>>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    first_used_at: Timestamp,
    /// The last use in milliseconds of the monotonic clock, then the marks.
    word: AtomicI64,
    /// The latest use in milliseconds of the wall clock, which the issue counts as.
    wall: AtomicI64,
    /// When the table last saw it in use: milliseconds of the monotonic clock, the low half.
    touched: AtomicU32,
    /// When it was made here: whole seconds of the monotonic clock.
    made: i32,
}

/// Found permanently idle: no use counts.
const OVER: i64 = 1;
/// Used since it was last saved.
const UNSAVED: i64 = 2;
/// No longer in the table: a use must enter it again.
const EVICTED: i64 = 4;
const MARKS: i64 = OVER | UNSAVED | EVICTED;
const SHIFT: u32 = 3;
/// The two counters of what is shared.
const SHARED: usize = 16;

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
    /// Its other names.
    pub names: Option<&'a Arc<TokenNames>>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// By when it was issued, as is known here: `iat`, or when it was first seen, if that was earlier.
    pub known_since: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// What came of a use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UseResult {
    /// It does not count: the token is idle.
    Idle,
    /// It does not count: the session left the table.
    Evicted,
    /// The first since the session was last saved, and how long after the use before.
    First(Duration),
    /// It counts.
    Again,
}

impl Session {
    /// A token that is used for the first time; `now` carries the wall clock that the table goes by, and `first` the
    /// local one.
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

    /// As it was saved.
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

    /// Which token.
    #[must_use]
    pub fn token(&self) -> TokenKey {
        self.token
    }

    /// Whose token it is.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its subject.
    #[must_use]
    pub fn subject(&self) -> Option<SubjectKey> {
        (self.subject.0 != self.token.0).then_some(self.subject)
    }

    /// Its first use: it was certainly issued by then, whatever `iat` says.
    #[must_use]
    pub fn first_used_at(&self) -> Timestamp {
        self.first_used_at
    }

    /// Its first use, if that was before it was issued by the clock of its issuer, which other replicas cannot know.
    pub(super) fn first_use_before_issue(&self) -> Option<Timestamp> {
        (self.first_used_at < self.issued_at).then_some(self.first_used_at)
    }

    /// Its last use on the wall clock.
    #[must_use]
    pub fn last_used_at(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::Acquire))
    }

    /// Its last use on the monotonic clock.
    #[must_use]
    pub fn last_used(&self) -> Monotonic {
        monotonic(self.word.load(Ordering::Acquire))
    }

    /// What memory it takes besides its own size.
    pub(super) fn outside(&self) -> usize {
        let client = self.client.as_ref().map_or(0, |client| client.len());
        client + self.names.as_ref().map_or(0, |names| SHARED + names.size())
    }

    /// Whether its token expired more than `leeway` ago.
    pub(super) fn is_expired(&self, now: Timestamp, leeway: Duration) -> bool {
        now.since(self.expires_at) > leeway
    }

    /// As it would be saved now.
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

    /// What a verdict needs to know of it; it may change right after.
    pub(super) fn stamp(&self) -> Stamp {
        // The word last: a use writes it last, so a word that shows a use comes with its wall clock.
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

    /// Counts a use at `case.now`, if the verdict is still that the token is in use.
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
            // Before the word, so that nobody sees the use without it and finds the token idle by the wall clock.
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

    /// It was used elsewhere.
    pub(super) fn learn(&self, at: Stamp) {
        self.wall.fetch_max(at.wall.as_millis(), Ordering::AcqRel);
        let learn = |word: i64| {
            let last = monotonic(word).max(at.monotonic);
            Some(last.as_millis() << SHIFT | word & MARKS)
        };
        // A closure that always answers never fails.
        _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, learn);
    }

    /// Whether the table has not seen it in use for `fraction`, and is to be shown now.
    pub(super) fn is_due_for_touch(&self, now: Monotonic, fraction: Duration) -> bool {
        let (touched, now) = (self.touched.load(Ordering::Relaxed), low(now));
        let since = now.wrapping_sub(touched);
        // Less than nothing: a clock that was read earlier.
        let passed = if since > u32::MAX / 2 { 0 } else { since };
        u128::from(passed) >= fraction.as_millis()
    }

    /// Notes that the table has seen it in use.
    pub(super) fn touch(&self, now: Monotonic) {
        self.touched.store(low(now), Ordering::Relaxed);
    }

    /// Clears the mark of being unsaved: a use from now on sets it again.
    pub(super) fn saving(&self) {
        self.word.fetch_and(!UNSAVED, Ordering::AcqRel);
    }

    /// Sets the mark again; false when it was set.
    pub(super) fn not_saved(&self) -> bool {
        self.word.fetch_or(UNSAVED, Ordering::AcqRel) & UNSAVED == 0
    }

    /// Ends it if the monotonic clock says at `case.now` that it is idle, in one step with looking; whether it is over.
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

    /// From now on no use counts.
    pub(super) fn end(&self) {
        self.word.fetch_or(OVER, Ordering::AcqRel);
    }

    /// Marks it as out of the table if it need not be kept, in one step with looking; whether it did. One that is idle is
    /// kept while its token, without it, would pass: the wall clock is behind then.
    pub(super) fn evict_if_done(&self, limits: &SessionLimits, now: Now) -> bool {
        let age = now.monotonic.since(Monotonic::from_millis(i64::from(self.made) * 1_000));
        let is_dead = limits.is_dead(self.expires_at.since(self.issued_at), age);
        let is_old = limits.is_idle(now.wall.since(self.issued_at));
        let is_idle = |word| is_old && limits.is_idle(now.monotonic.since(monotonic(word)));
        let evict = |word: i64| (is_dead || is_idle(word)).then_some(word | EVICTED);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, evict).is_ok()
    }

    /// It left the table.
    pub(super) fn evicted(&self) {
        self.word.fetch_or(EVICTED, Ordering::AcqRel);
    }
}

fn monotonic(word: i64) -> Monotonic {
    Monotonic::from_millis(word >> SHIFT)
}

fn seconds(moment: Monotonic) -> i32 {
    // Before its time or after 68 years: it then counts as made later, and is kept longer.
    i32::try_from(moment.as_millis().div_euclid(1_000)).unwrap_or(i32::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low half is what is wanted")]
fn low(moment: Monotonic) -> u32 {
    moment.as_millis() as u32
}

#[cfg(test)]
mod tests;
