//! What recent judgements found about a verified token, so that the next request need not look it up again.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::sessions::Session;
use crate::state::redis::FirstUse;
use crate::time::{Monotonic, Timestamp};

/// Remembered results about a token. Losing them costs some lookups.
#[derive(Debug, Default)]
pub struct TokenStanding {
    /// One more than the generation of the revocations under which it was last found in force; 0: never.
    cleared: AtomicU64,
    session: OnceLock<Arc<Session>>,
    /// Its first use on other replicas before `iat`, once they were asked; the maximum time if there was
    /// none.
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

    /// Keeps the session, so that the next judgement need not look it up. The first one stays: once it has
    /// left the table, which is rare, its successor is looked up each time.
    pub(super) fn keep(&self, session: &Arc<Session>) {
        drop(self.session.set(Arc::clone(session)));
    }

    /// Whether it was found in force under the revocations of this generation.
    pub(super) fn is_cleared(&self, generation: u64) -> bool {
        self.cleared.load(Ordering::Relaxed) == generation.saturating_add(1)
    }

    /// Records that it was found in force under the revocations of this generation, whatever the time.
    pub(super) fn clear(&self, generation: u64) {
        self.cleared.store(generation.saturating_add(1), Ordering::Relaxed);
    }

    /// The first use on other replicas, if they were asked.
    pub(super) fn first_use(&self) -> Option<Timestamp> {
        self.first_use.get().copied()
    }

    /// Records the answer of the other replicas; returns false if it is unknown.
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

/// The session of a token, kept with it or looked up in the table.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::{Key, TokenKey};
    use crate::sessions::{Introduction, Sessions, Settings};
    use crate::time::Now;

    fn session(at: Now) -> Arc<Session> {
        let settings =
            Settings { idle_timeouts: None.into(), max_tracked: 10, leeway: Duration::ZERO, saved: false };
        let token = Introduction {
            token: TokenKey(Key::from_bytes([7; 16])),
            issuer: &"https://idp.example/".into(),
            subject: None,
            client: None,
            issued_at: at.wall,
            known_since: at.wall,
            expires_at: at.wall.plus(Duration::from_secs(60)),
            names: None,
        };
        Sessions::new(settings).begin(None, &token, None, at).expect("in use").expect("a new session")
    }

    #[test]
    fn a_token_is_cleared_for_one_generation() {
        let standing = TokenStanding::default();
        for generation in [0, 1, u64::MAX - 1] {
            assert!(!standing.is_cleared(generation), "never judged: {generation}");
        }
        for generation in [0, 5, 4] {
            standing.clear(generation);
            let cleared = (0..8).filter(|other| standing.is_cleared(*other)).collect::<Vec<_>>();
            assert_eq!(cleared, [generation]);
        }
    }

    #[test]
    fn the_first_session_stays() {
        let (standing, at) = (TokenStanding::default(), Now::at_millis);
        assert!(standing.session().is_none());
        assert_eq!(standing.last_used(), None);
        let (first, second) = (session(at(1_000)), session(at(2_000)));
        for kept in [&first, &second] {
            standing.keep(kept);
            assert!(standing.session().is_some_and(|session| Arc::ptr_eq(session, &first)));
            assert_eq!(standing.last_used(), Some(at(1_000).monotonic));
        }
    }

    #[test]
    fn the_first_answer_about_the_first_use_stays() {
        let (early, late) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        let end = Timestamp::from_millis(i64::MAX);
        for (told, expected) in [(FirstUse::At(early), early), (FirstUse::Ordinary, end)] {
            let standing = TokenStanding::default();
            assert_eq!(standing.first_use(), None);
            assert!(!standing.learn_first_use(FirstUse::Unknown));
            assert_eq!(standing.first_use(), None, "that was no answer");
            for told in [told, FirstUse::At(late)] {
                assert!(standing.learn_first_use(told));
                assert_eq!(standing.first_use(), Some(expected), "{told:?}");
            }
        }
    }
}
