//! Idle clocks shared by replicas. Local clocks decide alone whenever they can; the shared store is asked
//! only when they say idle, or know nothing about an old token.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use moka::sync::Cache;
use tokio::sync::Notify;

use super::limits::SessionLimits;
use super::session::Introduction;
use super::verdict::Stamp;
use super::{Idleness, Session, Sessions, Settings, lock};
use crate::identity::{AsIs, TokenKey};
use crate::state::Store;
use crate::state::record::{IdleTerms, PerIssuer};
use crate::state::redis::{FirstUse, SharedUse};
use crate::time::{Now, Timestamp};

/// What the table needs of the shared store.
#[derive(Debug)]
pub(super) struct SharedClocks {
    store: Store,
    /// Milliseconds from the local wall clock to the one that all replicas use.
    offset: Arc<AtomicI64>,
    /// If a use comes with no more than this left of the idle timeout, the others must learn of it before the
    /// next flush, or they might find the token idle meanwhile.
    lead: Duration,
    early_flush: Notify,
    /// Signals first uses that the other replicas must know.
    first: Notify,
    /// Sessions of streams that seem idle here.
    doubts: Mutex<HashMap<TokenKey, Arc<Session>>>,
    /// Tokens that other replicas called permanently idle, cached so that not every request asks again.
    over: Cache<TokenKey, (), AsIs>,
}

/// Number of streams asked about concurrently.
const CONCURRENT_QUESTIONS: usize = 64;
/// How many permanently idle tokens are cached, and for how long.
const MAX_OVER: u64 = 65_536;
const OVER_TTL: Duration = Duration::from_secs(600);
/// Time that an early flush may take.
const EARLY_FLUSH_TIME: Duration = Duration::from_millis(500);

fn answers() -> Cache<TokenKey, (), AsIs> {
    Cache::builder().max_capacity(MAX_OVER).time_to_live(OVER_TTL).build_with_hasher(AsIs::default())
}

impl Sessions {
    /// Creates an empty table whose clocks are shared through `store` and flushed every `flush_interval`.
    #[must_use]
    pub fn sharing(settings: Settings, store: Store, flush_interval: Duration) -> Self {
        let shared = SharedClocks {
            offset: store.clock_offset(),
            store,
            lead: flush_interval.saturating_add(EARLY_FLUSH_TIME),
            early_flush: Notify::new(),
            first: Notify::new(),
            doubts: Mutex::default(),
            over: answers(),
        };
        Self { shared: Some(shared), ..Self::new(settings) }
    }

    /// Whether other replicas use the same clocks.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Returns `now` with the wall clock that all replicas of the table use.
    pub(super) fn on_shared_clock(&self, now: Now) -> Now {
        let offset = self.shared.as_ref().map_or(0, |shared| shared.offset.load(Ordering::Relaxed));
        Now { wall: Timestamp::from_millis(now.wall.as_millis().saturating_add(offset)), ..now }
    }

    /// Asks the other replicas for a token's last use and caches the answer; `known` is the last use known
    /// here.
    pub async fn ask_others(&self, token: TokenKey, issuer: &str, known: Timestamp) -> SharedUse {
        let Some(shared) = &self.shared else { return SharedUse::LastUsed(known) };
        let told = shared.store.last_use(token, known, self.idle_timeout(issuer)).await;
        if told == SharedUse::Over {
            shared.over.insert(token, ());
        }
        if let Some(session) = self.find(token) {
            self.learn(&session, told, Now::read());
        }
        told
    }

    /// The idle timeout of this issuer's tokens.
    fn idle_timeout(&self, issuer: &str) -> Option<Duration> {
        self.limits.load().of(issuer).idle
    }

    /// Asks the other replicas for a token's first use, where that may have come before `iat`.
    pub async fn ask_first_use(&self, token: TokenKey) -> FirstUse {
        match &self.shared {
            Some(shared) => shared.store.first_use(token).await,
            None => FirstUse::Ordinary,
        }
    }

    /// Queues a first use that precedes `iat`. Events end such a token everywhere from its first use on, so
    /// the others must know at once.
    pub(super) fn note_first_use(&self, session: &Session) {
        if let (Some(shared), Some(first)) = (&self.shared, session.first_use_before_issue()) {
            self.unsaved.note_first_use(session.token(), first);
            shared.first.notify_one();
        }
    }

    /// Sends these first uses to the other replicas at once; runs until dropped. What cannot be sent now goes
    /// with the next flush.
    pub async fn tell_first_uses(&self) {
        let Some(shared) = &self.shared else { return };
        loop {
            shared.first.notified().await;
            // The next flush tries again and reports the failure.
            drop(self.save_first_uses(&shared.store).await);
        }
    }

    /// Adopts the idle timeouts of the fleet: what was idle when a timeout grew stays idle on every replica,
    /// including one that starts later with the longer timeout.
    pub fn adopt(&self, terms: &PerIssuer<IdleTerms>, now: Now) {
        let (is_first, theirs) = (self.unsaved.is_first_comparison(), self.on_shared_clock(now));
        let adopt = |limits: &SessionLimits, IdleTerms { timeout, floor }: &IdleTerms| {
            let adopted = limits.with_floor(*floor);
            match is_first {
                true => SessionLimits { idle: *timeout, ..adopted }.with_idle(limits.idle, theirs),
                false => adopted,
            }
        };
        self.limits.rcu(|limits| limits.zip(terms, adopt));
    }

    /// Whether the other replicas recently called the token permanently idle.
    pub(super) fn is_known_to_be_over(&self, token: TokenKey) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.over.contains_key(&token))
    }

    fn learn(&self, session: &Session, told: SharedUse, now: Now) {
        match told {
            SharedUse::LastUsed(at) => {
                let theirs = self.on_shared_clock(now);
                let monotonic = theirs.monotonic.minus(theirs.wall.since(at));
                session.learn(Stamp { wall: at, monotonic, is_over: false, is_evicted: false });
            }
            SharedUse::Over => session.end(),
            SharedUse::Unknown => {}
        }
    }

    /// Decides whether a stream that the token opened may continue. One that seems idle here may continue
    /// until the others have been asked; it is noted for [`Self::resolve_doubts`].
    #[must_use]
    pub fn judge_stream(&self, session: &Arc<Session>, token: &Introduction<'_>, now: Now) -> bool {
        match (self.judge(Some(session), token, None, now), &self.shared) {
            (Idleness::InUse, _) => true,
            (Idleness::Ask(_), Some(shared)) => {
                lock(&shared.doubts).insert(session.token(), Arc::clone(session));
                true
            }
            (Idleness::Ask(_) | Idleness::Unavailable | Idleness::Idle, _) => false,
        }
    }

    /// Asks the other replicas about streams that seem idle here.
    pub async fn resolve_doubts(&self) {
        let Some(shared) = &self.shared else { return };
        let doubts = std::mem::take(&mut *lock(&shared.doubts));
        let doubts: Vec<(TokenKey, Arc<Session>)> = doubts.into_iter().collect();
        for some in doubts.chunks(CONCURRENT_QUESTIONS) {
            let asking = some.iter().map(|(token, session)| {
                let idle = self.idle_timeout(session.issuer());
                shared.store.last_use(*token, session.last_used_at(), idle)
            });
            for (told, (_, session)) in join_all(asking).await.into_iter().zip(some) {
                // If the answer is unavailable, the stream's next check queues the doubt again.
                self.learn(session, told, Now::read());
            }
        }
    }

    /// Waits until a use must be flushed early; forever if the clocks are not shared.
    pub async fn hurried(&self) {
        match &self.shared {
            Some(shared) => shared.early_flush.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Requests an early flush if a use came `pause` after the previous one and `idle` leaves too little
    /// time.
    pub(super) fn request_early_flush(&self, pause: Duration, idle: Option<Duration>) {
        let Some(shared) = &self.shared else { return };
        if idle.is_some_and(|idle| pause.saturating_add(shared.lead) > idle) {
            shared.early_flush.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::identity::{Key, SubjectKey};
    use crate::metrics::Metrics;
    use crate::sessions::IdleTimeouts;
    use crate::state::record::IdleFloor;
    use crate::state::redis;
    use crate::state::redis::endpoint::RedisEndpoint;
    use crate::time::{Monotonic, Now};

    const IDLE: Duration = Duration::from_secs(60);

    const fn ms(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    const fn at(millis: i64) -> Now {
        Now::at_millis(millis)
    }

    fn table(offset: i64) -> Sessions {
        let settings = Settings {
            idle_timeouts: Some(IDLE).into(),
            max_tracked: 10,
            leeway: Duration::ZERO,
            saved: true,
        };
        let shared = SharedClocks {
            store: Store::in_memory(Now::at_millis(0)).unwrap(),
            offset: Arc::new(AtomicI64::new(offset)),
            lead: Duration::from_secs(2),
            early_flush: Notify::new(),
            first: Notify::new(),
            doubts: Mutex::default(),
            over: answers(),
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
            known_since: ms(0),
            expires_at: ms(3_600_000),
            names: None,
        }
    }

    #[test]
    fn a_token_used_elsewhere_is_used_here_as_well() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = token(&issuer);
        assert_eq!(table.judge(None, &token, None, at(60_001)), Idleness::Ask(ms(0)));
        assert!(table.begin(None, &token, None, at(60_001)).is_err());
        table.sweep(at(60_001));
        assert_eq!(table.left(), super::super::Left::default());
        assert_eq!(table.tracked(), 0, "what may not pass leaves no trace");
        let told = Some(SharedUse::LastUsed(ms(50_000)));
        let session = table.begin(None, &token, told, at(60_001)).unwrap().unwrap();
        assert_eq!(session.last_used_at(), ms(60_001));
        let later = |told| table.judge(Some(&session), &token, told, at(120_002));
        assert_eq!(later(None), Idleness::Ask(ms(60_001)));
        table.learn(&session, SharedUse::LastUsed(ms(90_000)), at(120_002));
        assert_eq!(later(None), Idleness::InUse);
        assert_eq!(table.judge(Some(&session), &token, None, at(150_001)), Idleness::Ask(ms(90_000)));
        table.learn(&session, SharedUse::Over, at(150_001));
        assert_eq!(table.judge(Some(&session), &token, told, at(1)), Idleness::Idle, "without asking again");
    }

    #[test]
    fn a_replica_whose_clock_is_wrong_judges_as_the_others() {
        let (slow, issuer) = (table(60_000), "https://a/".into());
        let token = token(&issuer);
        let session = slow.begin(None, &token, None, at(-1_000)).unwrap().unwrap();
        assert_eq!(session.last_used_at(), ms(59_000));
        assert_eq!(slow.judge(Some(&session), &token, None, at(59_000)), Idleness::InUse);
        assert_eq!(slow.judge(Some(&session), &token, None, at(59_001)), Idleness::Ask(ms(59_000)));
    }

    #[test]
    fn what_was_idle_by_the_timeout_of_the_fleet_stays_so() {
        let floor = |wall: i64| IdleFloor {
            monotonic: Monotonic::from_millis(wall),
            wall: ms(wall),
            timeout: IDLE / 2,
        };
        let now = at(1_000_000);
        // Terms that the others store one after the other, and the floor that results. This replica's timeout
        // is `IDLE`.
        for (kept, expected) in [
            (vec![(Some(IDLE), None)], None),
            (vec![(Some(2 * IDLE), None)], None),
            (vec![(None, None)], None),
            (vec![(Some(IDLE / 2), None)], Some(970_000)),
            (vec![(Some(IDLE), Some(900_000))], Some(900_000)),
            (vec![(Some(IDLE / 2), Some(900_000))], Some(970_000)),
            (vec![(Some(IDLE), None), (Some(IDLE / 2), None)], None),
            (vec![(Some(IDLE), None), (Some(IDLE), Some(900_000))], Some(900_000)),
            (vec![(Some(IDLE), Some(900_000)), (Some(IDLE), Some(800_000))], Some(900_000)),
        ] {
            let table = table(0);
            for (timeout, wall) in kept.iter().copied() {
                table.adopt(&IdleTerms { timeout, floor: wall.map(floor) }.into(), now);
            }
            let limits = *table.limits.load().common();
            assert_eq!(limits.idle, Some(IDLE), "{kept:?}");
            assert_eq!(limits.floor.map(|floor| floor.wall), expected.map(ms), "{kept:?}");
        }
    }

    #[test]
    fn what_was_idle_by_the_timeout_of_the_fleet_for_an_issuer_stays_so() {
        let terms = |timeout, floor: Option<i64>| IdleTerms {
            timeout,
            floor: floor.map(|wall| IdleFloor {
                monotonic: Monotonic::from_millis(wall),
                wall: ms(wall),
                timeout: IDLE / 2,
            }),
        };
        let (a, b) = ("https://a/", "https://b/");
        let (half, now) = (Some(IDLE / 2), at(1_000_000));
        // This replica's common timeout is `IDLE`; one issuer's is four times that.
        for (common, own, expected) in [
            (terms(Some(IDLE), None), vec![], [None, Some(940_000)]),
            (terms(Some(IDLE), None), vec![(a, terms(half, None))], [Some(970_000), Some(940_000)]),
            (terms(Some(IDLE), None), vec![(b, terms(None, None))], [None, None]),
            (terms(Some(IDLE), None), vec![(b, terms(Some(4 * IDLE), Some(7)))], [None, Some(7)]),
            (terms(half, None), vec![(b, terms(Some(4 * IDLE), None))], [Some(970_000), None]),
            (terms(Some(IDLE), Some(9)), vec![(a, terms(Some(IDLE), Some(8)))], [Some(8), Some(940_000)]),
            (terms(half, None), vec![(a, terms(None, None)), (b, terms(None, None))], [None, None]),
        ] {
            let table = table(0);
            let timeouts = IdleTimeouts::new(Some(IDLE), [(b.into(), Some(4 * IDLE))]);
            let _longer = table.reconfigure(&timeouts, Duration::ZERO, at(0));
            table
                .limits
                .rcu(|limits| limits.map(|limits| SessionLimits { floor: None, own_floor: None, ..*limits }));
            let told = PerIssuer::new(common, own.iter().map(|(issuer, terms)| ((*issuer).into(), *terms)));
            table.adopt(&told, now);
            let limits = table.limits.load();
            assert_eq!(limits.map(|limits| limits.idle), timeouts, "{told:?}");
            let floors = [a, b].map(|issuer| limits.of(issuer).floor.map(|floor| floor.wall));
            assert_eq!(floors, expected.map(|floor| floor.map(ms)), "{told:?}");
            // After the first comparison only floors are adopted.
            table.adopt(&terms(Some(Duration::ZERO), None).into(), now);
            assert_eq!(
                [a, b].map(|issuer| table.limits.load().of(issuer).floor.map(|floor| floor.wall)),
                floors
            );
        }
    }

    #[test]
    fn a_use_is_saved_early_by_the_timeout_of_its_issuer() {
        // The next flush reaches the others after 2 s.
        for (idle, pause, expected) in [
            (Some(IDLE), 58_000, false),
            (Some(IDLE), 58_001, true),
            (Some(IDLE / 6), 8_000, false),
            (Some(IDLE / 6), 8_001, true),
            (None, 50_000_000, false),
        ] {
            let (table, issuer) = (table(0), "https://b/".into());
            let _longer = table.reconfigure(
                &IdleTimeouts::new(Some(IDLE), [(Arc::clone(&issuer), idle)]),
                Duration::ZERO,
                at(0),
            );
            assert!(is_hurried(&table), "the timeouts changed");
            assert!(table.begin(None, &token(&issuer), None, at(pause)).is_ok());
            assert_eq!(is_hurried(&table), expected, "{idle:?}: first used after {pause} ms");
        }
    }

    #[test]
    fn others_are_told_the_first_use_of_a_token_whose_issue_lies_ahead() {
        let issuer = "https://a/".into();
        for (used_at, expected) in [(-1, Some(-1)), (0, None), (1, None)] {
            let table = table(0);
            let token = Introduction { known_since: ms(used_at.min(0)), ..token(&issuer) };
            assert!(table.begin(None, &token, None, at(used_at)).is_ok());
            let first = |table: &Sessions| lock(&table.unsaved.first).first().map(|(_, at)| *at);
            assert_eq!(first(&table), expected.map(ms), "{used_at}");
            lock(&table.unsaved.first).clear();
            table.save_again();
            assert_eq!(first(&table), expected.map(ms), "{used_at}: to an emptied store once more");
        }
    }

    #[test]
    fn a_stream_that_seems_idle_goes_on_until_the_others_were_asked() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = token(&issuer);
        let session = table.begin(None, &token, None, at(30_000)).unwrap().unwrap();
        let doubts = |table: &Sessions| lock(&table.shared.as_ref().unwrap().doubts).len();
        assert!(table.judge_stream(&session, &token, at(90_000)));
        assert_eq!(doubts(&table), 0);
        table.sweep(at(90_001));
        assert!(table.judge_stream(&session, &token, at(91_000)));
        assert_eq!(doubts(&table), 1, "only a stream that goes on is worth a question");
        session.end();
        assert!(!table.judge_stream(&session, &token, at(91_000)));
    }

    fn is_hurried(table: &Sessions) -> bool {
        table.hurried().now_or_never().is_some()
    }

    #[test]
    fn a_use_is_saved_early_when_others_would_find_the_token_idle_before_the_next_flush() {
        // The timeout is 60 s; the next flush reaches the others after 2 s.
        for (pause, expected) in [(0, false), (58_000, false), (58_001, true), (60_000, true)] {
            let issuer = "https://a/".into();
            let (first, again, own) = (table(0), table(0), Sessions { shared: None, ..table(0) });
            assert!(first.begin(None, &token(&issuer), None, at(pause)).is_ok());
            assert_eq!(is_hurried(&first), expected, "first used after {pause} ms");
            let session = again.begin(None, &token(&issuer), None, at(0)).unwrap().unwrap();
            assert!(!is_hurried(&again));
            session.clear_unsaved();
            assert!(again.begin(Some(&session), &token(&issuer), None, at(pause)).is_ok());
            assert_eq!(is_hurried(&again), expected, "used after {pause} ms");
            assert!(own.begin(None, &token(&issuer), None, at(pause)).is_ok());
            assert!(!is_hurried(&own), "nobody else needs to know");
        }
        let table = table(0);
        assert!(!table.reconfigure(&Some(IDLE / 2).into(), Duration::ZERO, at(0)));
        assert!(is_hurried(&table) && !is_hurried(&table), "once for each change");
        assert!(!table.reconfigure(&None.into(), Duration::ZERO, at(0)));
        assert!(!is_hurried(&table), "nothing is idle any more");
    }

    #[tokio::test]
    async fn a_token_that_is_known_to_be_over_is_not_asked_about_again() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = token(&issuer);
        let judged = |now| table.judge(None, &token, None, at(now));
        assert_eq!(table.ask_others(token.token, "https://a/", ms(5)).await, SharedUse::LastUsed(ms(5)));
        assert_eq!(judged(60_001), Idleness::Ask(ms(0)), "it was used, and may be again");
        table.shared.as_ref().unwrap().over.insert(token.token, ());
        assert_eq!(judged(60_001), Idleness::Idle);
        assert_eq!(judged(60_000), Idleness::InUse, "not idle here, so nobody is asked");
    }

    #[tokio::test]
    async fn doubts_are_resolved_once_and_come_back_with_the_next_look() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = token(&issuer);
        let session = table.begin(None, &token, None, at(30_000)).unwrap().unwrap();
        let doubts = || lock(&table.shared.as_ref().unwrap().doubts).len();
        for _ in 0..2 {
            assert!(table.judge_stream(&session, &token, at(90_001)));
            assert_eq!(doubts(), 1);
            table.resolve_doubts().await;
            assert_eq!(doubts(), 0);
        }
    }

    #[test]
    fn first_uses_are_told_as_soon_as_there_are_any() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = token(&issuer);
        let mut telling = Box::pin(table.tell_first_uses());
        assert!(telling.as_mut().now_or_never().is_none(), "there are none yet");
        for (round, early) in [-1, -2].into_iter().enumerate() {
            let token = Introduction { known_since: ms(early), ..token };
            let token = Introduction { token: TokenKey(Key::from_bytes([round as u8; 16])), ..token };
            assert!(table.begin(None, &token, None, at(early)).is_ok());
            assert_eq!(lock(&table.unsaved.first).len(), 1, "{early}");
            assert!(telling.as_mut().now_or_never().is_none(), "it goes on");
            assert!(lock(&table.unsaved.first).is_empty(), "{early}");
        }
    }

    #[tokio::test]
    async fn first_uses_that_cannot_be_told_wait_for_the_next_flush() {
        let (table, issuer) = (table(0), "https://a/".into());
        let token = Introduction { known_since: ms(-1), ..token(&issuer) };
        assert!(table.begin(None, &token, None, at(-1)).is_ok());
        // A listener that never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", silent.local_addr().unwrap());
        let endpoint = RedisEndpoint::parse(&url).unwrap();
        let settings = redis::Settings { endpoint, events: None, ca: None, key_prefix: String::new() };
        let terms = redis::RedisTerms {
            max_staleness: IDLE,
            flush_interval: IDLE,
            longest_idle: Some(IDLE),
            kept: IDLE,
        };
        let (store, _changes) = Store::shared(settings, terms, Metrics::new().unwrap()).unwrap();
        let first = || lock(&table.unsaved.first).clone();
        assert!(table.save(&store).await.is_err());
        assert_eq!(first(), [(token.token, ms(-1))]);
        assert_eq!(table.unsaved.len(), 1, "nor is the last use lost");
        let own = Store::in_memory(at(0)).unwrap();
        assert_eq!(table.save(&own).await, Ok(1));
        assert_eq!((first(), table.unsaved.len()), (Vec::new(), 0));
    }
}
