//! Idle clocks that replicas share: what the local clock can tell is told by it alone, and only where it says idle, or
//! says nothing of an old token, the shared store is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::session::Introduction;
use super::{Session, Sessions, Settings, lock};
use crate::identity::TokenKey;
use crate::state::Store;
use crate::state::redis::Told;
use crate::time::Timestamp;

/// Why a token with a shared idle clock may not pass (yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It was idle on every replica, and is refused for good.
    Idle,
    /// Ask what the others know: here it was last used at this time.
    Ask(Timestamp),
    /// What the others know cannot be told now.
    Unavailable,
}

/// What a table needs of the store that it shares.
#[derive(Debug)]
pub(super) struct Shared {
    store: Store,
    /// Milliseconds to the clock that all replicas go by.
    offset: Arc<AtomicI64>,
    /// A use that leaves no more than this of the idle timeout since the one before must be known to the others before
    /// the next flush, or they might find the token idle meanwhile.
    lead: Duration,
    hurry: Notify,
    /// Sessions of streams that seem idle here.
    doubts: Mutex<HashMap<TokenKey, Arc<Session>>>,
}

/// Streams that are asked about at once.
const AT_A_TIME: usize = 64;
/// What an early write may take.
const AT_ONCE: Duration = Duration::from_millis(500);

impl Sessions {
    /// An empty table of clocks that are shared through `store`, written behind every `flush_interval`.
    #[must_use]
    pub fn sharing(settings: Settings, store: Store, flush_interval: Duration) -> Self {
        let shared = Shared {
            offset: store.clock_offset(),
            store,
            lead: flush_interval.saturating_add(AT_ONCE),
            hurry: Notify::new(),
            doubts: Mutex::default(),
        };
        Self { shared: Some(shared), ..Self::new(settings) }
    }

    /// Whether other replicas use the same clocks.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The moment on the clock that all who share the table go by.
    pub(super) fn on_their_clock(&self, now: Timestamp) -> Timestamp {
        match &self.shared {
            Some(shared) => Timestamp::from_millis(now.as_millis() + shared.offset.load(Ordering::Relaxed)),
            None => now,
        }
    }

    /// As [`Self::judge`], where one replica alone cannot call a token idle; `told` is what the others answered.
    ///
    /// # Errors
    /// Why it may not pass, or that the others must be asked first.
    pub fn judge_shared(
        &self,
        kept: Option<&Arc<Session>>,
        token: &Introduction<'_>,
        told: Option<Told>,
        now: Timestamp,
    ) -> Result<Arc<Session>, Doubt> {
        let (idle, now) = (self.idle(), self.on_their_clock(now));
        if let Some(kept) = kept.filter(|kept| kept.seems_in_force(now, idle)) {
            return Ok(Arc::clone(kept));
        }
        let mut shard = self.shard(token.token);
        let known = shard.get(&token.token).cloned();
        match &known {
            Some(session) if session.seems_in_force(now, idle) => return Ok(Arc::clone(session)),
            Some(session) if session.is_over() => return Err(Doubt::Idle),
            _ => {}
        }
        let fresh = known.is_none() && now.since(token.issued_at) <= idle;
        if !fresh {
            match told {
                None => {
                    return Err(Doubt::Ask(known.map_or(token.issued_at, |session| session.last_used_at())));
                }
                Some(Told::Unknown) => return Err(Doubt::Unavailable),
                // Nothing need be remembered where there is room only for tokens in use: the mark is in the store.
                Some(Told::Over) if known.is_none() && self.tracked() >= self.settings.max_tracked => {
                    return Err(Doubt::Idle);
                }
                Some(Told::Over | Told::LastUsed(_)) => {}
            }
        }
        let session = known.unwrap_or_else(|| {
            self.make_room(&mut shard);
            let session = Arc::new(Session::new(token));
            shard.insert(token.token, Arc::clone(&session));
            session
        });
        drop(shard);
        match told {
            Some(Told::LastUsed(at)) => session.learn(at),
            Some(Told::Over) => session.end(),
            Some(Told::Unknown) | None => {}
        }
        if session.seems_in_force(now, idle) { Ok(session) } else { Err(Doubt::Idle) }
    }

    /// Whether a stream may go on; one that seems idle may, until the others were asked.
    pub(super) fn may_go_on(&self, shared: &Shared, session: &Arc<Session>, now: Timestamp) -> bool {
        if session.seems_in_force(now, self.idle()) {
            return true;
        }
        let over = session.is_over();
        if !over {
            lock(&shared.doubts).insert(session.token(), Arc::clone(session));
        }
        !over
    }

    /// What the others know of a token's last use; `known` is the last use known here.
    pub async fn ask_others(&self, token: TokenKey, known: Timestamp) -> Told {
        match &self.shared {
            Some(shared) => shared.store.last_use(token, known).await,
            None => Told::LastUsed(known),
        }
    }

    /// Whether the others have to be asked before the token can be called in use or idle.
    #[must_use]
    pub fn is_in_doubt(&self, session: &Session, now: Timestamp) -> bool {
        self.is_shared() && !session.seems_in_force(self.on_their_clock(now), self.idle())
    }

    /// Asks the others about streams that seem idle here.
    pub async fn resolve_doubts(&self) {
        let Some(shared) = &self.shared else { return };
        let doubts = std::mem::take(&mut *lock(&shared.doubts));
        let doubts: Vec<(TokenKey, Arc<Session>)> = doubts.into_iter().collect();
        for some in doubts.chunks(AT_A_TIME) {
            let asking =
                some.iter().map(|(token, session)| shared.store.last_use(*token, session.last_used_at()));
            for (told, (_, session)) in join_all(asking).await.into_iter().zip(some) {
                match told {
                    Told::LastUsed(at) => session.learn(at),
                    Told::Over => session.end(),
                    // The next look of the stream brings the doubt back.
                    Told::Unknown => {}
                }
            }
        }
    }

    /// Waits until a use should be saved before its turn; for ever where nobody else needs to know.
    pub async fn hurried(&self) {
        match &self.shared {
            Some(shared) => shared.hurry.notified().await,
            None => std::future::pending().await,
        }
    }

    /// A use came so long after the one before.
    pub(super) fn hurry_up(&self, pause: Duration) {
        if let Some(shared) =
            self.shared.as_ref().filter(|shared| pause.saturating_add(shared.lead) > self.idle())
        {
            shared.hurry.notify_one();
        }
    }

    /// Every session is saved again: the store has lost them.
    pub fn save_again(&self) {
        for shard in &self.shards {
            let used: Vec<Arc<Session>> =
                lock(shard).values().filter(|session| session.was_used()).cloned().collect();
            used.iter().filter(|session| session.not_saved()).for_each(|session| self.remember(session));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Key, SubjectKey};
    use crate::time::Now;

    const IDLE: Duration = Duration::from_secs(60);

    const fn ms(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn table(offset: i64) -> Sessions {
        let settings =
            Settings { idle_timeout: Some(IDLE), max_tracked: 10, leeway: Duration::ZERO, saved: true };
        let shared = Shared {
            store: Store::in_memory(Now::at_millis(0)).unwrap(),
            offset: Arc::new(AtomicI64::new(offset)),
            lead: Duration::from_secs(2),
            hurry: Notify::new(),
            doubts: Mutex::default(),
        };
        Sessions { shared: Some(shared), ..Sessions::new(settings) }
    }

    fn token(issuer: &Arc<str>) -> Introduction<'_> {
        Introduction {
            token: TokenKey(Key::from_bytes([7; 16])),
            issuer,
            subject: Some(SubjectKey::new("https://a/", "alice")),
            client: None,
            issued_at: ms(0),
            expires_at: ms(3_600_000),
        }
    }

    #[test]
    fn the_others_are_asked_only_when_this_replica_cannot_tell() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = token(&issuer);
        let session = table.judge_shared(None, &token, None, ms(60_000)).unwrap();
        assert!(table.used(&session, ms(60_000)));
        assert!(table.judge_shared(None, &token, None, ms(120_000)).is_ok());
        let later = |told| table.judge_shared(Some(&session), &token, told, ms(120_001)).map(drop);
        assert_eq!(later(None), Err(Doubt::Ask(ms(60_000))));
        assert_eq!(later(Some(Told::Unknown)), Err(Doubt::Unavailable));
        assert_eq!(later(Some(Told::LastUsed(ms(90_000)))), Ok(()), "used elsewhere");
        assert!(table.judge_shared(Some(&session), &token, None, ms(150_000)).is_ok());
    }

    #[test]
    fn what_was_idle_everywhere_stays_so() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = token(&issuer);
        let judge = |told, at| table.judge_shared(None, &token, told, ms(at)).map(drop);
        assert_eq!(judge(None, 60_001), Err(Doubt::Ask(ms(0))));
        assert_eq!(judge(Some(Told::Over), 60_001), Err(Doubt::Idle));
        assert_eq!(judge(None, 60_000), Err(Doubt::Idle), "without asking again");
    }

    #[test]
    fn a_replica_whose_clock_is_wrong_judges_as_the_others() {
        let (slow, issuer) = (table(60_000), "https://a/".into());
        let token = token(&issuer);
        let session = slow.judge_shared(None, &token, None, ms(0)).unwrap();
        assert!(slow.used(&session, ms(-1_000)));
        assert_eq!(session.last_used_at(), ms(59_000));
        assert!(matches!(slow.judge_shared(None, &token, None, ms(59_001)), Err(Doubt::Ask(_))));
    }

    #[test]
    fn a_stream_that_seems_idle_goes_on_until_the_others_were_asked() {
        let (table, issuer) = (table(0), "https://a/".into());
        let session = table.judge_shared(None, &token(&issuer), None, ms(60_000)).unwrap();
        assert!(table.is_in_force(&session, ms(61_000)));
        session.end();
        assert!(!table.is_in_force(&session, ms(61_000)));
    }
}
