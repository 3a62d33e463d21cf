//! A store shared by replicas, in Redis: one event log that every replica follows, last uses that any replica
//! may read, and the proof, renewed every second, that nothing is missed.
//!
//! Knows servers and entries; the rooms above decide what an event ends and when a token is idle. Runs on a
//! thread of its own, so that no admin call can delay what every request depends on.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, watch};

use crate::metrics::Metrics;
use crate::time::{Monotonic, Now};

mod catch_up;
mod clocks;
mod confirm;
mod connect;
mod counts;
mod create;
mod directory;
pub mod endpoint;
pub(crate) mod entry;
mod fault;
mod first_uses;
mod follows;
mod keys;
mod log;
mod mend;
mod phase;
mod proofs;
mod registry;
mod removed;
mod scripts;
mod setup;
mod streams;
mod supervise;
mod terms;
#[cfg(test)]
mod testing;
mod transfer;

pub use clocks::SharedUse;
pub use create::create;
pub use first_uses::FirstUse;
pub use log::{ReplicaChange, ReplicaChanges};
pub use removed::Removed;
pub(super) use transfer::{read, write};

use connect::{Connector, Lanes, RedisConnection};
use endpoint::RedisEndpoint;
use fault::RedisFault;
use keys::{RedisKeys, slot};
use log::EntryPosition;
use phase::RedisPhase;
use scripts::Scripts;
use terms::KeptTerms;

use super::freshness::Freshness;
use super::mirror::Lost;
use super::record::PerIssuer;
use super::uptime::Uptime;
use super::writer::StoreWriter;
use super::{OpenError, StoreError, schema};

/// How long to wait for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How many change notices may be queued.
const CHANGES: usize = 4;

/// The settings of a shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub endpoint: RedisEndpoint,
    /// Read replicas from which events may be read instead.
    pub events: Option<RedisEndpoint>,
    /// PEM file with the CA certificates for TLS; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The prefix of every key.
    pub key_prefix: String,
}

/// The parts of the remaining configuration that the store needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisTerms {
    /// How old the last confirmation may be for requests to be decided.
    pub max_staleness: Duration,
    /// How often last uses are written.
    pub flush_interval: Duration,
    /// The longest idle timeout of all issuers, for which last uses are kept; `None` if tokens do not go idle.
    pub longest_idle: Option<Duration>,
    /// The longest time for which an event can have an effect.
    pub kept: Duration,
}

/// This replica's connection to the shared store and what it knows of it.
pub(super) struct SharedStore {
    keys: RedisKeys,
    scripts: Scripts,
    connector: Connector,
    events_connector: Option<Connector>,
    mirror: Arc<StoreWriter>,
    /// The running time of the local copy of the log.
    pub(super) uptime: Uptime,
    /// Identifies the entries that this replica wrote.
    writer: u32,
    metrics: Metrics,
    pub(super) freshness: Arc<Freshness>,
    /// Milliseconds to add to the local clock to get the server's.
    pub(super) offset: Arc<AtomicI64>,
    /// Milliseconds to add to the monotonic clock to get the server's, once measured.
    ahead: Mutex<Option<i64>>,
    terms: Mutex<RedisTerms>,
    /// The idle timeouts of the fleet that were last put in force here.
    idle: Mutex<Option<PerIssuer<KeptTerms>>>,
    lanes: ArcSwapOption<Lanes>,
    position: Mutex<EntryPosition>,
    lost: Arc<Mutex<Lost>>,
    /// What the log last said about removed entries.
    dropped: Mutex<String>,
    /// The phase of the supervising task.
    phase: watch::Sender<RedisPhase>,
    /// Whether entries that were read are being put in force.
    applying: watch::Sender<bool>,
    /// A heartbeat whose last entry is not in force here yet: the moment that it confirms, and that entry.
    pending: Mutex<Option<(Monotonic, u64)>>,
    /// When all last uses are in the store again; milliseconds on the monotonic clock, like the next field.
    settled_at: AtomicI64,
    /// When read replicas are tried again.
    distrusted_until: AtomicI64,
    /// Incremented when an emptied store needs all last uses again.
    pub(super) emptied: watch::Sender<u64>,
    condition: watch::Sender<Option<String>>,
    first: watch::Sender<Option<Result<(), RedisFault>>>,
    changes: mpsc::Sender<ReplicaChanges>,
    /// Notified when a connection has failed.
    trouble: Notify,
    /// Notified when a heartbeat is needed at once.
    doubt: Notify,
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// The thread that runs the connection; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) fleet: Arc<SharedStore>,
    pub(super) handle: Handle,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// Starts the thread. Changes by other replicas come through the receiver; each must be put in force
/// before the next comes.
pub(super) fn start(
    settings: Settings,
    terms: RedisTerms,
    metrics: Metrics,
) -> Result<(Running, Arc<StoreWriter>, mpsc::Receiver<ReplicaChanges>), OpenError> {
    let refused = |error: std::io::Error| OpenError::Refused(error.to_string());
    let (fleet, follow) = prepare(settings, terms, metrics)?;
    let (mirror, running) = (Arc::clone(&fleet.mirror), Arc::clone(&fleet));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(refused)?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let life = async move {
        tokio::select! {
            () = running.run() => {}
            _ = stopped => {}
        }
    };
    let spawned = std::thread::Builder::new().name("fleet".into()).spawn(move || runtime.block_on(life));
    drop(spawned.map_err(refused)?);
    Ok((Running { fleet, handle, _stop: stop }, mirror, follow))
}

/// Creates the state of a replica that does nothing yet.
fn prepare(
    settings: Settings,
    terms: RedisTerms,
    metrics: Metrics,
) -> Result<(Arc<SharedStore>, mpsc::Receiver<ReplicaChanges>), OpenError> {
    let refused = |why: String| OpenError::Refused(why);
    let ca = settings.ca.as_ref();
    let connector = |endpoint| Connector::new(endpoint, ca).map_err(|error| refused(error.to_string()));
    let database = schema::in_memory(Now::read())?;
    let uptime = database.uptime;
    let mirror = StoreWriter::start(database);
    let mirror = Arc::new(mirror.map_err(|error| refused(error.to_string()))?);
    let (changes, follow) = mpsc::channel(CHANGES);
    let fleet = Arc::new(SharedStore {
        keys: RedisKeys::new(&settings.key_prefix),
        scripts: Scripts::new(),
        connector: connector(settings.endpoint.clone())?,
        events_connector: settings.events.clone().map(connector).transpose()?,
        mirror,
        uptime,
        writer: supervise::random() as u32,
        metrics,
        freshness: Arc::new(Freshness::never(terms.max_staleness)),
        offset: Arc::default(),
        ahead: Mutex::default(),
        terms: Mutex::new(terms),
        idle: Mutex::default(),
        lanes: ArcSwapOption::empty(),
        position: Mutex::default(),
        lost: Arc::default(),
        dropped: Mutex::default(),
        phase: watch::Sender::new(RedisPhase::Connecting),
        applying: watch::Sender::new(false),
        pending: Mutex::default(),
        settled_at: AtomicI64::new(i64::MIN),
        distrusted_until: AtomicI64::new(i64::MIN),
        emptied: watch::Sender::new(0),
        condition: watch::Sender::new(Some("not connected yet".to_owned())),
        first: watch::Sender::new(None),
        changes,
        trouble: Notify::new(),
        doubt: Notify::new(),
    });
    Ok((fleet, follow))
}

impl SharedStore {
    /// Applies the settings that a reload may change.
    pub(super) fn reconfigure(&self, terms: RedisTerms) {
        self.freshness.set_max_staleness(terms.max_staleness);
        let before = std::mem::replace(&mut *lock(&self.terms), terms);
        // Last uses were not written while tokens did not go idle, so none is marked permanently idle until all
        // replicas have written theirs.
        if before.longest_idle.is_none() && terms.longest_idle.is_some() {
            self.settle(Duration::ZERO);
        }
    }

    /// What is wrong with the store, if anything.
    pub(super) fn condition(&self) -> Option<String> {
        self.condition.borrow().clone()
    }

    /// Identifies the log that is followed, and says how far.
    pub(super) fn log(&self) -> super::LogPosition {
        let EntryPosition { id, last, .. } = self.position();
        super::LogPosition { identity: id, sequence: last }
    }

    /// Waits at most `patience` for the first attempt to use the store, and returns its outcome.
    pub(super) async fn opened(&self, patience: Duration) -> Result<(), OpenError> {
        let mut first = self.first.subscribe();
        let told = tokio::time::timeout(patience, first.wait_for(Option::is_some)).await;
        match told.ok().and_then(Result::ok).and_then(|first| first.clone()) {
            Some(Err(RedisFault::Refused(why))) => Err(OpenError::Refused(why)),
            _ => Ok(()),
        }
    }

    fn settle_first(&self, outcome: Result<(), RedisFault>) {
        self.first.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(outcome);
            }
            is_first
        });
    }

    /// Records what is wrong; returns whether that is new.
    fn set_condition(&self, condition: Option<String>) -> bool {
        self.condition.send_if_modified(|said| {
            let news = *said != condition;
            *said = condition;
            news
        })
    }

    fn require_fresh(&self) -> Result<(), StoreError> {
        if self.freshness.is_fresh(Monotonic::now()) {
            return Ok(());
        }
        let why = self
            .condition()
            .unwrap_or_else(|| "it has not been confirmed for longer than max_staleness".to_owned());
        Err(StoreError::Unreachable(why))
    }

    fn connect(&self, lanes: Arc<Lanes>) {
        self.lanes.store(Some(lanes));
    }

    fn disconnect(&self) {
        self.lanes.store(None);
    }

    fn lanes(&self) -> Option<Arc<Lanes>> {
        self.lanes.load_full()
    }

    /// Returns the connection for a key.
    fn lane(&self, key: &[u8]) -> Result<RedisConnection, RedisFault> {
        let lanes = self.lanes().ok_or_else(|| RedisFault::Unreachable("not connected".to_owned()))?;
        let slot = if self.connector.is_cluster() { slot(key) } else { 0 };
        lanes.to(slot).cloned()
    }

    fn log_lane(&self) -> Result<RedisConnection, RedisFault> {
        self.lane(self.keys.origin.as_bytes())
    }

    fn is_cluster(&self) -> bool {
        self.connector.is_cluster()
    }

    /// Reports a failed call, so that the connections are checked.
    fn report(&self, fault: &RedisFault) {
        if matches!(fault, RedisFault::Moved(_) | RedisFault::Unreachable(_)) {
            self.trouble.notify_one();
        }
    }

    fn position(&self) -> EntryPosition {
        lock(&self.position).clone()
    }

    fn set_position(&self, position: EntryPosition) {
        *lock(&self.position) = position;
    }

    fn advance(&self, last: u64) {
        let mut position = lock(&self.position);
        (position.last, position.read) = (last, position.read.max(last));
    }

    fn longest_idle(&self) -> Option<Duration> {
        lock(&self.terms).longest_idle
    }

    fn kept(&self) -> Duration {
        lock(&self.terms).kept
    }

    fn kept_millis(&self) -> i64 {
        i64::try_from(self.kept().as_millis()).unwrap_or(i64::MAX).min(1 << 50)
    }

    /// How often the log is confirmed.
    fn heartbeat(&self) -> Duration {
        (lock(&self.terms).max_staleness / 4).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }

    fn phase(&self) -> RedisPhase {
        *self.phase.borrow()
    }

    fn enter(&self, phase: RedisPhase) {
        self.phase.send_replace(phase);
    }

    /// Whether everything that is held here is also in the log, as far as is known.
    fn is_whole(&self) -> bool {
        self.phase() == RedisPhase::Following
    }

    /// Marks the last uses in the store as incomplete: all replicas write them again within two flushes.
    fn settle(&self, at_least: Duration) {
        let flushes = lock(&self.terms).flush_interval * 2 + RESPONSE_TIMEOUT * 2;
        let until = Monotonic::now().plus(flushes.max(at_least));
        self.settled_at.fetch_max(until.as_millis(), Ordering::Relaxed);
        self.emptied.send_modify(|times| *times += 1);
    }

    fn is_settling(&self) -> bool {
        Monotonic::now().as_millis() < self.settled_at.load(Ordering::Relaxed)
    }

    fn trusts_replicas(&self) -> bool {
        Monotonic::now().as_millis() >= self.distrusted_until.load(Ordering::Relaxed)
    }

    fn distrust_replicas(&self) {
        const WHILE: Duration = Duration::from_secs(30);
        self.distrusted_until.store(Monotonic::now().plus(WHILE).as_millis(), Ordering::Relaxed);
    }
}

/// Locks a mutex. Nothing panics while it holds one, so the value behind a poisoned lock is intact.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::identity::TokenKey;
    use crate::state::Store;
    use crate::time::Timestamp;

    const TERMS: RedisTerms = RedisTerms {
        max_staleness: Duration::from_secs(2),
        flush_interval: Duration::from_secs(5),
        longest_idle: Some(Duration::from_secs(60)),
        kept: Duration::from_secs(300),
    };

    /// Settings for an address where nothing listens.
    fn settings(url: &str) -> Settings {
        let endpoint = RedisEndpoint::parse(url).unwrap();
        Settings { endpoint, events: None, ca: None, key_prefix: "test:".to_owned() }
    }

    fn fleet() -> Arc<SharedStore> {
        prepare(settings("redis://127.0.0.1:1"), TERMS, Metrics::new().unwrap()).unwrap().0
    }

    #[test]
    fn the_first_outcome_stands_and_only_a_refusal_ends_the_start() {
        let open = |fleet: &SharedStore| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(fleet.opened(Duration::ZERO)).map_err(|error| error.to_string())
        };
        let no = |why: &str| RedisFault::Refused(why.to_owned());
        let silent = || RedisFault::Unreachable("silence".to_owned());
        for (outcomes, is_open) in [
            (vec![], true),
            (vec![Ok(()), Err(no("never"))], true),
            (vec![Err(silent()), Err(no("never"))], true),
            (vec![Err(no("never")), Ok(())], false),
        ] {
            let fleet = fleet();
            outcomes.iter().cloned().for_each(|outcome| fleet.settle_first(outcome));
            let opened = open(&fleet);
            assert_eq!(opened.is_ok(), is_open, "{outcomes:?}");
            assert!(opened.err().is_none_or(|why| why.contains("never")));
        }
    }

    #[test]
    fn a_condition_is_news_once_and_the_reason_why_nothing_can_be_done() {
        let fleet = fleet();
        let why = || fleet.require_fresh().map_err(|error| error.to_string());
        let now = |why: &str| Err(format!("the shared state store is temporarily unavailable: {why}"));
        assert_eq!(why(), now("not connected yet"));
        assert!(fleet.set_condition(Some("it is gone".to_owned())));
        assert!(!fleet.set_condition(Some("it is gone".to_owned())));
        assert_eq!((fleet.condition().as_deref(), why()), (Some("it is gone"), now("it is gone")));
        assert!(fleet.set_condition(None));
        assert!(!fleet.set_condition(None));
        assert_eq!(
            (fleet.condition(), why()),
            (None, now("it has not been confirmed for longer than max_staleness"))
        );
        fleet.freshness.confirm(Monotonic::now());
        assert_eq!(why(), Ok(()));
        fleet.reconfigure(RedisTerms { max_staleness: Duration::ZERO, ..TERMS });
        fleet.freshness.confirm(Monotonic::now().minus(Duration::from_secs(1)));
        std::iter::repeat_with(|| fleet.require_fresh().is_err()).find(|is_stale| *is_stale).unwrap();
    }

    #[test]
    fn the_settings_in_force_say_what_is_kept_and_how_often_the_log_is_confirmed() {
        let fleet = fleet();
        assert_eq!((fleet.longest_idle(), fleet.kept()), (TERMS.longest_idle, TERMS.kept));
        for (staleness, heartbeat) in
            [(199, 50), (200, 50), (204, 51), (2_000, 500), (4_000, 1_000), (9_000, 1_000)]
        {
            let max_staleness = Duration::from_millis(staleness);
            fleet.reconfigure(RedisTerms { max_staleness, ..TERMS });
            assert_eq!(fleet.heartbeat(), Duration::from_millis(heartbeat), "{staleness}");
        }
        let most = 1_125_899_906_842_624;
        for (kept, millis) in [(7, 7), (u64::MAX, most)] {
            let kept = Duration::from_millis(kept);
            fleet.reconfigure(RedisTerms { kept, longest_idle: None, ..TERMS });
            assert_eq!((fleet.kept_millis(), fleet.kept(), fleet.longest_idle()), (millis, kept, None));
        }
    }

    #[test]
    fn a_place_moves_forward_and_what_was_read_is_never_less() {
        let fleet = fleet();
        assert_eq!(fleet.position(), EntryPosition::default());
        fleet.set_position(EntryPosition {
            id: "log".to_owned(),
            last: 3,
            read: 9,
            ..EntryPosition::default()
        });
        fleet.advance(5);
        let EntryPosition { id, last, read, .. } = fleet.position();
        assert_eq!((id.as_str(), last, read), ("log", 5, 9));
        fleet.advance(10);
        let EntryPosition { last, read, .. } = fleet.position();
        assert_eq!((last, read), (10, 10));
        let log = fleet.log();
        assert_eq!((log.identity.as_str(), log.sequence), ("log", 10));
    }

    #[test]
    fn only_a_gate_that_follows_is_whole() {
        let fleet = fleet();
        for (phase, is_whole) in [
            (RedisPhase::Connecting, false),
            (RedisPhase::CatchingUp, false),
            (RedisPhase::Mending, false),
            (RedisPhase::Following, true),
            (RedisPhase::Pausing, false),
        ] {
            fleet.enter(phase);
            assert_eq!((fleet.phase(), fleet.is_whole()), (phase, is_whole));
        }
    }

    #[test]
    fn last_uses_settle_within_two_flushes_or_as_long_as_is_asked() {
        for (at_least, wait) in [(0, 12_000), (20_000, 20_000)] {
            let fleet = fleet();
            let emptied = fleet.emptied.subscribe();
            assert!(!fleet.is_settling());
            let before = Monotonic::now().as_millis();
            fleet.settle(Duration::from_millis(at_least));
            let until = fleet.settled_at.load(Ordering::Relaxed);
            assert!((before + wait..=Monotonic::now().as_millis() + wait).contains(&until));
            assert!(fleet.is_settling());
            assert_eq!(*emptied.borrow(), 1);
            fleet.settle(Duration::ZERO);
            assert!(fleet.settled_at.load(Ordering::Relaxed) >= until, "never earlier");
            assert_eq!(*emptied.borrow(), 2, "each time");
            fleet.settled_at.store(before - 1, Ordering::Relaxed);
            assert!(!fleet.is_settling());
        }
    }

    #[test]
    fn last_uses_are_collected_first_when_tokens_begin_to_go_idle() {
        let some = |secs| Some(Duration::from_secs(secs));
        for (from, to, settles) in [
            (None, some(60), true),
            (None, None, false),
            (some(60), some(90), false),
            (some(60), None, false),
        ] {
            let fleet = fleet();
            fleet.reconfigure(RedisTerms { longest_idle: from, ..TERMS });
            fleet.reconfigure(RedisTerms { longest_idle: to, ..TERMS });
            assert_eq!(
                (fleet.is_settling(), *fleet.emptied.borrow()),
                (settles, settles.into()),
                "{from:?} {to:?}"
            );
        }
    }

    #[test]
    fn read_replicas_are_tried_again_after_half_a_minute() {
        let fleet = fleet();
        assert!(fleet.trusts_replicas());
        let before = Monotonic::now().as_millis();
        fleet.distrust_replicas();
        assert!(!fleet.trusts_replicas());
        let until = fleet.distrusted_until.load(Ordering::Relaxed);
        assert!((before + 30_000..=Monotonic::now().as_millis() + 30_000).contains(&until));
        fleet.distrusted_until.store(before, Ordering::Relaxed);
        assert!(fleet.trusts_replicas());
    }

    #[test]
    fn a_fault_of_the_connection_is_looked_into() {
        let fleet = fleet();
        for (fault, is_trouble) in [
            (RedisFault::Unreachable(String::new()), true),
            (RedisFault::Moved(String::new()), true),
            (RedisFault::Full, false),
            (RedisFault::Refused(String::new()), false),
            (RedisFault::Unwritable(String::new()), false),
        ] {
            fleet.report(&fault);
            assert_eq!(fleet.trouble.notified().now_or_never().is_some(), is_trouble, "{fault:?}");
        }
    }

    #[test]
    fn a_cluster_is_one_by_its_url_and_nothing_is_asked_before_it_is_connected() {
        for (url, is_cluster) in [("redis://127.0.0.1:1", false), ("redis-cluster://127.0.0.1:1", true)] {
            let (fleet, _changes) = prepare(settings(url), TERMS, Metrics::new().unwrap()).unwrap();
            assert_eq!(fleet.is_cluster(), is_cluster, "{url}");
            assert!(fleet.lanes().is_none());
            assert!(matches!(fleet.log_lane(), Err(RedisFault::Unreachable(why)) if why == "not connected"));
        }
    }

    #[test]
    fn lanes_are_those_it_was_connected_by_last_until_it_is_disconnected() {
        let fleet = fleet();
        let (first, second) = (Arc::new(Lanes::none()), Arc::new(Lanes::none()));
        for lanes in [&first, &second, &first] {
            fleet.connect(Arc::clone(lanes));
            assert!(fleet.lanes().is_some_and(|known| Arc::ptr_eq(&known, lanes)));
            let why = fleet.log_lane().unwrap_err().to_string();
            assert!(why.contains("no node of the cluster serves slot 0"), "{why}");
        }
        for _ in 0..2 {
            fleet.disconnect();
            assert!(fleet.lanes().is_none());
            let why = fleet.log_lane().unwrap_err().to_string();
            assert!(why.contains("not connected"), "{why}");
        }
    }

    #[tokio::test]
    async fn a_shared_store_that_nobody_reaches_says_so_and_keeps_nothing() {
        let (store, _changes) =
            Store::shared(settings("redis://127.0.0.1:1"), TERMS, Metrics::new().unwrap()).unwrap();
        assert!(store.is_shared() && store.is_durable() && !store.is_closed());
        assert!(store.condition().is_some());
        assert_eq!(*store.emptied().unwrap().borrow(), 0);
        assert!(!store.freshness().is_fresh(Monotonic::now()));
        assert!(matches!(store.opened(Duration::ZERO).await, Ok(())), "it may come");
        let token = TokenKey::new("https://a/", "x");
        let kept = store.save_first_uses(vec![(token, Timestamp::EPOCH)]).await;
        assert!(matches!(kept, Err(StoreError::Unreachable(_))), "{kept:?}");
        let claimed = store.claim_authority("https://a/", &["key".to_owned()]).await;
        assert!(matches!(claimed, Err(StoreError::Unreachable(_))), "{claimed:?}");
        let fleet = store.fleet().unwrap();
        fleet.offset.store(17, Ordering::Relaxed);
        assert_eq!(store.clock_offset().load(Ordering::Relaxed), 17, "that of the server");
        store.reconfigure(RedisTerms { longest_idle: None, ..TERMS });
        assert_eq!(fleet.longest_idle(), None);
        let (ran, told) = tokio::sync::oneshot::channel();
        store.beside(async move { ran.send(std::thread::current().name() == Some("fleet")).unwrap() });
        assert_eq!(told.await, Ok(true), "on its thread");
    }
}
