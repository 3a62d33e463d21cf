//! What is remembered of a verified token between two requests, so that the next need not find it again.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::sessions::Session;
use crate::state::redis::FirstUse;
use crate::time::{Monotonic, Timestamp};

/// What is remembered of a token. Losing it costs some look-ups.
#[derive(Debug, Default)]
pub struct TokenStanding {
    /// One more than the generation of the revocations under which it was last found in force; 0: never.
    cleared: AtomicU64,
    session: OnceLock<Arc<Session>>,
    /// Its first use on other replicas before `iat`, once they were asked; the end of time where there was none.
    first_use: OnceLock<Timestamp>,
}

impl TokenStanding {
    /// The last use of the token; `None` before its first.
    pub(super) fn last_used(&self) -> Option<Monotonic> {
        self.session.get().map(|session| session.last_used())
    }

    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.session.get()
    }

    /// Keeps the session, so that the next judgement need not look for it. The first one stays: when it has left the
    /// table, which is seldom, the one that came after it is looked for each time.
    pub(super) fn keep(&self, session: &Arc<Session>) {
        drop(self.session.set(Arc::clone(session)));
    }

    /// Whether it was found in force by the revocations of this generation.
    pub(super) fn is_cleared(&self, generation: u64) -> bool {
        self.cleared.load(Ordering::Relaxed) == generation.saturating_add(1)
    }

    /// It was found in force by the revocations of this generation, whatever the time.
    pub(super) fn clear(&self, generation: u64) {
        self.cleared.store(generation.saturating_add(1), Ordering::Relaxed);
    }

    /// The first use on other replicas, once they were asked.
    pub(super) fn first_use(&self) -> Option<Timestamp> {
        self.first_use.get().copied()
    }

    /// Keeps what the other replicas answered; false when they could not.
    pub(super) fn learn_first_use(&self, told: FirstUse) -> bool {
        let first = match told {
            FirstUse::At(first) => first,
            FirstUse::Ordinary => Timestamp::from_millis(i64::MAX),
            FirstUse::Unknown => return false,
        };
        self.first_use.get_or_init(|| first);
        true
    }
}

/// The session of a token, kept with it or found.
pub(super) enum Known<'a> {
    Kept(&'a Arc<Session>),
    Found(Arc<Session>),
}

impl Deref for Known<'_> {
    type Target = Arc<Session>;

    fn deref(&self) -> &Arc<Session> {
        match self {
            Self::Kept(session) => session,
            Self::Found(session) => session,
        }
    }
}
