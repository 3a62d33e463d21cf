//! Tracks what arrives on a stream: the requested heartbeat, status changes, and gaps.
//!
//! On every replica, the receiver records here what arrives; the replica that maintains the stream reads it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::description::StreamStatus;
use super::notice::StreamNotice;
use crate::enforce::signals::SignalClock;
use crate::jose::json;
use crate::state::{AskedState, Store};
use crate::time::{Now, Timestamp};

/// The most verifications that are awaited at a time; older ones are dropped.
const AWAITED: usize = 8;
/// How long a transmitter is assumed to retry pushes; no transmitter is known to retry for longer.
const PUSHED: Duration = Duration::from_secs(3600);
/// How long a transmitter is assumed to keep signals that are not polled.
const KEPT: Duration = Duration::from_secs(86_400);
/// How long other replicas consider the stream paused; renewed before it ends.
const TOLD: Duration = Duration::from_secs(3600);
/// The patience without a heartbeat: never overdue.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A verification event whose state was not requested (SSF 1.0 §8.1.4).
#[derive(Debug, PartialEq, Eq)]
pub(in crate::signals::ssf) struct UnaskedState;

/// What is known of the stream of one transmitter.
#[derive(Debug)]
pub struct StreamHealth {
    name: String,
    subject_issuer: Arc<str>,
    clock: Arc<SignalClock>,
    store: Store,
    /// How long a heartbeat is valid, in milliseconds.
    patience: AtomicU64,
    heard: Mutex<Heard>,
    statuses: mpsc::Sender<StreamStatus>,
}

#[derive(Debug)]
struct Heard {
    /// The id of the transmitter's stream, once known.
    stream: Option<String>,
    /// The states of verifications, oldest first, and whether each has arrived.
    awaited: VecDeque<(String, bool)>,
    /// When any replica last confirmed a heartbeat, possibly before this process started.
    at: Option<Timestamp>,
    /// How long the transmitter keeps signals that it cannot deliver.
    memory: Duration,
}

impl StreamHealth {
    /// Starts tracking the stream of this transmitter; status changes are sent to the receiver. `heartbeat` is
    /// the interval of verifications.
    pub(super) fn new(
        (name, subject_issuer): (&str, Arc<str>),
        clock: Arc<SignalClock>,
        store: Store,
        heartbeat: Option<Duration>,
        is_polled: bool,
    ) -> (Arc<Self>, mpsc::Receiver<StreamStatus>) {
        let (statuses, arriving) = mpsc::channel(8);
        let memory = if is_polled { KEPT } else { PUSHED };
        let heard = Heard { stream: None, awaited: VecDeque::new(), at: None, memory };
        let watch = Self {
            name: name.to_owned(),
            subject_issuer,
            clock,
            store,
            patience: AtomicU64::new(0),
            heard: Mutex::new(heard),
            statuses,
        };
        watch.expect_every(heartbeat);
        (Arc::new(watch), arriving)
    }

    /// Sets the interval of verifications; a heartbeat is overdue after twice this time.
    pub(super) fn expect_every(&self, heartbeat: Option<Duration>) {
        self.patience.store(millis(patience(heartbeat)), Ordering::Relaxed);
    }

    /// Records the id of the transmitter's stream, which differs after the stream had to be created again.
    pub(super) async fn keeps(&self, stream: &str, inactivity: Option<Duration>) {
        {
            let mut heard = self.heard();
            heard.stream = Some(stream.to_owned());
            if let Some(inactivity) = inactivity {
                heard.memory = inactivity;
            }
        }
        self.remember().await;
    }

    /// Loads what was known before this process started, and reports a gap if that is too long ago. Returns
    /// whether a stream was maintained then.
    pub(super) async fn recall(&self, now: Timestamp) -> bool {
        let remembered = match self.store.remembered_stream(&self.name).await {
            Ok(remembered) => remembered.and_then(|text| json::object(text.as_bytes()).ok()),
            Err(error) => {
                tracing::warn!(transmitter = self.name, %error, "cannot read the state of its stream");
                None
            }
        };
        let Some(remembered) = remembered else { return false };
        let at = remembered.get("heard_at").and_then(Value::as_i64).map(Timestamp::from_millis);
        let memory = remembered.get("kept_ms").and_then(Value::as_u64).map(Duration::from_millis);
        let gap = {
            let mut heard = self.heard();
            heard.memory = memory.unwrap_or(heard.memory);
            heard.at = heard.at.max(at);
            let gap = heard.at.filter(|at| now.since(*at) > heard.memory);
            if gap.is_some() {
                heard.at = None;
            }
            gap
        };
        if let Some(since) = gap {
            self.report_gap(since, "the transmitter was silent for longer than it keeps signals");
        }
        remembered.get("stream_id").is_some_and(Value::is_string)
    }

    /// Reports a gap: the stream was lost or its events discarded, so what the transmitter sent since the last
    /// heartbeat is unknown.
    pub(super) fn missed(&self, why: &str) {
        let since = self.heard().at.take();
        self.report_gap(since.unwrap_or_else(Timestamp::now), why);
    }

    fn report_gap(&self, since: Timestamp, why: &str) {
        let remedy = format!(
            "signals since then may be permanently lost; to be safe, end all older tokens: portcullis event issuer-revoked --issuer {}",
            self.subject_issuer
        );
        tracing::warn!(transmitter = self.name, %since, why, remedy, "signals_gap");
    }

    /// Announces that a verification event with this state is about to be requested.
    pub(super) async fn expect(&self, state: &str) {
        {
            let mut heard = self.heard();
            heard.awaited.push_back((state.to_owned(), false));
            while heard.awaited.len() > AWAITED {
                heard.awaited.pop_front();
            }
        }
        let kept = self.patience().min(TOLD).max(Duration::from_secs(60));
        if let Err(error) = self.store.expect_state(&self.name, state, kept).await {
            tracing::debug!(transmitter = self.name, %error, "cannot tell other replicas which verification is expected");
        }
    }

    /// Processes a notice of the transmitter about the stream.
    ///
    /// # Errors
    /// When it is a verification with a state that was not requested.
    pub(in crate::signals::ssf) async fn notice(
        &self,
        notice: &StreamNotice,
        now: Now,
    ) -> Result<(), UnaskedState> {
        match notice {
            StreamNotice::Verification(state) => self.verified(state.as_deref(), now).await,
            StreamNotice::Updated { stream, status, reason } => {
                self.updated(stream.as_deref(), status.0, reason.as_deref()).await;
                Ok(())
            }
        }
    }

    /// Processes a verification event. One without a state was not requested; it confirms nothing,
    /// because it may be a replay.
    ///
    /// # Errors
    /// When its state was not requested.
    async fn verified(&self, state: Option<&str>, now: Now) -> Result<(), UnaskedState> {
        let Some(state) = state else { return Ok(()) };
        let here = {
            let mut heard = self.heard();
            let awaited = heard.awaited.iter_mut().find(|(awaited, _)| awaited == state);
            awaited.map(|(_, arrived)| std::mem::replace(arrived, true))
        };
        let text = format!("ok {}", self.patience.load(Ordering::Relaxed));
        let told = self.store.confirm_state(&self.name, state, (&text, self.patience().min(NEVER))).await;
        let told = told.unwrap_or_else(|error| {
            tracing::debug!(transmitter = self.name, %error, "cannot tell other replicas about the heartbeat");
            AskedState::Unknown
        });
        match (here, told) {
            // First arrival here, and the store does not know the state: it is not shared, or was unreachable.
            (Some(false), AskedState::Unknown) => {
                drop(self.store.tell_of_stream(&self.name, &text, self.patience()).await);
                self.confirm(now).await;
                Ok(())
            }
            (Some(false) | None, AskedState::First) => {
                self.confirm(now).await;
                Ok(())
            }
            (Some(_), _) | (None, AskedState::Again) => Ok(()),
            (None, AskedState::Unknown) => Err(UnaskedState),
        }
    }

    /// Processes a status notice of the transmitter (SSF 1.0 §8.1.5).
    async fn updated(&self, stream: Option<&str>, status: StreamStatus, reason: Option<&str>) {
        let ours = self.heard().stream.clone();
        if let (Some(ours), Some(named)) = (ours, stream)
            && ours != named
        {
            return tracing::info!(transmitter = self.name, "the transmitter updated a different stream");
        }
        let reason: String = reason.unwrap_or_default().chars().take(200).collect();
        tracing::info!(
            transmitter = self.name,
            status = status.as_str(),
            reason,
            "the transmitter updated the stream"
        );
        self.changed(status).await;
        self.pass_on(status);
    }

    /// Passes a status to the stream's owner, if that is this replica.
    fn pass_on(&self, status: StreamStatus) {
        if self.statuses.try_send(status).is_err() {
            tracing::debug!(transmitter = self.name, "an update of the stream's status is already pending");
        }
    }

    /// Processes the stream's status, whether it was read or reported.
    pub(super) async fn changed(&self, status: StreamStatus) {
        if status == StreamStatus::Enabled {
            return;
        }
        self.clock.suspend();
        if let Err(error) = self.store.tell_of_stream(&self.name, status.as_str(), TOLD).await {
            tracing::debug!(transmitter = self.name, %error, "cannot tell other replicas that the stream has stopped");
        }
    }

    /// Processes what another replica said about the stream, which is valid for `left`.
    pub(super) fn told(&self, text: &str, left: Duration, now: Now) {
        if let Some(patience) = text.strip_prefix("ok ").and_then(|millis| millis.parse().ok()) {
            self.patience.store(patience, Ordering::Relaxed);
            let patience = Duration::from_millis(patience);
            let ago = patience.saturating_sub(left);
            self.clock.confirm(now.monotonic.minus(ago), patience);
            let mut heard = self.heard();
            heard.at = heard.at.max(Some(now.wall.minus(ago)));
        } else if let Some(status) =
            StreamStatus::read(text).filter(|status| *status != StreamStatus::Enabled)
            && !self.clock.is_suspended()
        {
            self.clock.suspend();
            self.pass_on(status);
        }
    }

    async fn confirm(&self, now: Now) {
        self.clock.confirm(now.monotonic, self.patience());
        let gap = {
            let mut heard = self.heard();
            let memory = heard.memory;
            heard.at.replace(now.wall).filter(|before| now.wall.since(*before) > memory)
        };
        tracing::debug!(transmitter = self.name, "the stream's heartbeat is confirmed");
        if let Some(since) = gap {
            self.report_gap(
                since,
                "no heartbeat was confirmed for longer than the transmitter keeps signals",
            );
        }
        self.remember().await;
    }

    async fn remember(&self) {
        let (mut stream, at, memory) = {
            let heard = self.heard();
            (heard.stream.clone(), heard.at.map(Timestamp::as_millis), millis(heard.memory))
        };
        if stream.is_none() {
            // Only the replica that maintains the stream knows its id.
            let known = self.store.remembered_stream(&self.name).await.ok().flatten();
            let known = known.and_then(|text| json::object(text.as_bytes()).ok());
            stream = known.and_then(|known| known.get("stream_id")?.as_str().map(str::to_owned));
        }
        let text = json!({"stream_id": stream, "heard_at": at, "kept_ms": memory}).to_string();
        if let Err(error) = self.store.remember_stream(&self.name, &text).await {
            tracing::warn!(transmitter = self.name, %error, "cannot save the state of its stream");
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a heartbeat is valid: twice its interval.
pub(super) fn patience(heartbeat: Option<Duration>) -> Duration {
    heartbeat.map_or(NEVER, |heartbeat| heartbeat.saturating_mul(2).min(NEVER))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::log::testing::KeptLog;
    use crate::time::Monotonic;

    const HEARTBEAT: Duration = Duration::from_secs(60);

    /// A watch that awaits a verification with this state.
    pub(in crate::signals::ssf) async fn awaiting(state: &str) -> Arc<StreamHealth> {
        let (watch, ..) = watching(&store());
        watch.expect(state).await;
        watch
    }

    fn watching(store: &Store) -> (Arc<StreamHealth>, Arc<SignalClock>, mpsc::Receiver<StreamStatus>) {
        let clock = Arc::new(SignalClock::new("t", Monotonic::from_millis(0), patience(Some(HEARTBEAT))));
        let issuer = "https://idp.example.com/".into();
        let (watch, statuses) =
            StreamHealth::new(("t", issuer), Arc::clone(&clock), store.clone(), Some(HEARTBEAT), false);
        (watch, clock, statuses)
    }

    fn store() -> Store {
        Store::in_memory(Now::at_millis(0)).unwrap()
    }

    const fn at(second: i64) -> Monotonic {
        Monotonic::from_millis(second * 1000)
    }

    fn now(second: i64) -> Now {
        Now::at_millis(second * 1000)
    }

    #[tokio::test]
    async fn a_heartbeat_is_one_that_was_asked_for_and_counts_once() {
        let (watch, clock, _statuses) = watching(&store());
        assert!(!clock.is_stale(at(120)) && clock.is_stale(at(121)));
        assert_eq!(watch.verified(None, now(100)).await, Ok(()));
        assert!(clock.is_stale(at(121)), "unasked");
        assert_eq!(watch.verified(Some("a"), now(100)).await, Err(UnaskedState));
        watch.expect("a").await;
        assert_eq!(watch.verified(Some("b"), now(100)).await, Err(UnaskedState));
        assert_eq!(watch.verified(Some("a"), now(100)).await, Ok(()));
        assert!(!clock.is_stale(at(220)) && clock.is_stale(at(221)));
        assert_eq!(watch.verified(Some("a"), now(200)).await, Ok(()), "the same answer as before");
        assert!(clock.is_stale(at(221)), "a copy proves nothing");
    }

    #[tokio::test]
    async fn only_the_last_verifications_are_awaited() {
        let (watch, ..) = watching(&store());
        for state in 0..=AWAITED {
            watch.expect(&state.to_string()).await;
        }
        assert_eq!(watch.verified(Some("0"), now(1)).await, Err(UnaskedState));
        assert_eq!(watch.verified(Some("1"), now(1)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_stream_that_stopped_is_stale_at_once_until_it_is_heard() {
        let (watch, clock, mut statuses) = watching(&store());
        watch.updated(None, StreamStatus::Enabled, None).await;
        assert!(!clock.is_stale(at(0)));
        watch.updated(None, StreamStatus::Paused, Some("maintenance")).await;
        assert!(clock.is_stale(at(0)));
        watch.updated(None, StreamStatus::Enabled, None).await;
        assert!(clock.is_stale(at(0)), "that is only said");
        let told = [statuses.try_recv().ok(), statuses.try_recv().ok(), statuses.try_recv().ok()];
        assert_eq!(told, [StreamStatus::Enabled, StreamStatus::Paused, StreamStatus::Enabled].map(Some));
        watch.expect("a").await;
        watch.verified(Some("a"), now(10)).await.unwrap();
        assert!(!clock.is_stale(at(130)) && clock.is_stale(at(131)));
        watch.keeps("s1", None).await;
        watch.updated(Some("s2"), StreamStatus::Paused, None).await;
        assert!(!clock.is_stale(at(130)), "of another stream");
        watch.updated(Some("s1"), StreamStatus::Disabled, None).await;
        assert!(clock.is_stale(at(130)));
    }

    #[tokio::test]
    async fn other_replicas_are_believed() {
        let (watch, clock, mut statuses) = watching(&store());
        watch.told("ok 500000", Duration::from_secs(400), now(1000));
        assert!(!clock.is_stale(at(1400)) && clock.is_stale(at(1401)));
        assert_eq!(clock.age(at(1000)), Duration::from_secs(100));
        for _ in 0..2 {
            watch.told("paused", Duration::from_secs(400), now(1000));
            assert!(clock.is_suspended());
        }
        let passed_on = [statuses.try_recv().ok(), statuses.try_recv().ok()];
        assert_eq!(passed_on, [Some(StreamStatus::Paused), None], "the keeper looks at the status");
        for nothing in ["enabled", "", "ok", "ok x", "whatever"] {
            watch.told(nothing, Duration::from_secs(400), now(1000));
            assert!(clock.is_suspended(), "{nothing}");
        }
        watch.told("ok 1000", Duration::from_secs(2), now(1000));
        assert!(!clock.is_stale(at(1001)) && clock.is_stale(at(1002)));
    }

    #[tokio::test]
    async fn an_operator_hears_since_when_signals_may_be_missing() {
        let (store, log) = (store(), KeptLog::start());
        let (watch, ..) = watching(&store);
        for state in ["a", "b", "c"] {
            watch.expect(state).await;
        }
        watch.verified(Some("a"), now(100)).await.unwrap();
        watch.verified(Some("b"), now(100 + 3600)).await.unwrap();
        watch.verified(Some("c"), now(101 + 7200)).await.unwrap();
        watch.missed("it was lost");
        watch.missed("it was lost again");
        let lines = log.lines("signals_gap");
        let shown = |line: &serde_json::Value| ["transmitter", "why"].map(|name| line[name].clone());
        assert_eq!(
            lines.iter().map(shown).collect::<Vec<_>>(),
            [
                ["t", "no heartbeat was confirmed for longer than the transmitter keeps signals"],
                ["t", "it was lost"],
                ["t", "it was lost again"],
            ]
        );
        let since = |line: &serde_json::Value| line["since"].as_str().unwrap_or_default().to_owned();
        assert!(since(&lines[0]).starts_with("1970-01-01T01:01:40"), "{lines:?}");
        assert!(since(&lines[1]).starts_with("1970-01-01T02:01:41"), "{lines:?}");
        assert!(since(&lines[2]) > since(&lines[1]), "what is not known any more counts from now on");
        for line in &lines {
            let remedy = line["remedy"].as_str().unwrap_or_default();
            let command = "portcullis event issuer-revoked --issuer https://idp.example.com/";
            assert!(remedy.ends_with(command), "{remedy}");
        }
    }

    #[tokio::test]
    async fn what_was_heard_is_known_after_a_restart() {
        let store = store();
        let (watch, ..) = watching(&store);
        assert!(!watch.recall(Timestamp::from_secs(1)).await, "nothing yet");
        watch.keeps("s", None).await;
        watch.expect("a").await;
        watch.verified(Some("a"), now(100)).await.unwrap();
        for (later, gap) in [(100 + 3600, false), (101 + 3600, true)] {
            let (watch, ..) = watching(&store);
            assert!(watch.recall(Timestamp::from_secs(later)).await);
            assert_eq!(watch.heard().at.is_none(), gap, "{later}");
        }
        let (elsewhere, ..) = watching(&store);
        elsewhere.expect("b").await;
        elsewhere.verified(Some("b"), now(200)).await.unwrap();
        let (watch, ..) = watching(&store);
        assert!(
            watch.recall(Timestamp::from_secs(200)).await,
            "a replica that does not know the stream keeps it"
        );
        watch.keeps("s2", Some(Duration::from_secs(10))).await;
        let (watch, ..) = watching(&store);
        assert!(watch.recall(Timestamp::from_secs(1_000_000)).await, "a time is not needed");
        assert_eq!(watch.heard().memory, Duration::from_secs(10));
    }
}
