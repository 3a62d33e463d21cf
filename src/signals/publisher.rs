//! Publishes signals: makes their events durable and puts them in force, then counts the tokens in use that they ended.
//!
//! Does not know how a signal arrived, or its format.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use crate::events::EventLog;
use crate::identity::{AsIs, ClientKey, IssuerKey, Key};
use crate::metrics::Metrics;
use crate::revocations::{Revocations, Snapshot, TokenFacts};
use crate::sessions::{Session, Sessions};
use crate::state::StoreError;
use crate::state::record::{Event, EventKind, EventSource};
use crate::time::Now;

/// The content of one message from a sender.
#[derive(Debug)]
pub struct Signal {
    /// How it arrived.
    pub source: EventSource,
    /// The name of the sender in the configuration.
    pub sender: String,
    /// The resulting events; empty if it has no effect here.
    pub events: Vec<Event>,
    /// Why parts of it have no effect here.
    pub passed_over: Vec<&'static str>,
}

/// Publishes signals.
#[derive(Debug)]
pub struct SignalLog {
    log: Arc<EventLog>,
    revocations: Arc<Revocations>,
    events: IntCounterVec,
    signals: IntCounterVec,
    state_errors: IntCounterVec,
    told: mpsc::Sender<Uncounted>,
}

/// A signal that is in force and whose effect has not been counted yet.
#[derive(Debug)]
struct Uncounted {
    signal: Signal,
    /// The revocations in force before it.
    before: Arc<Snapshot>,
}

/// How many signals may wait to be counted. When that many wait, senders wait, too.
const WAITING: usize = 4096;
/// How many signals one scan of the tokens in use counts.
const AT_ONCE: usize = 4096;
/// Scanning a million tokens in use takes a second of one core, so the next scan waits this many times as long
/// as the last one took.
const REST: u32 = 4;

impl SignalLog {
    /// Starts publishing to this log, and counting in `sessions` until the last handle is dropped. Needs a runtime.
    #[must_use]
    pub fn start(
        log: Arc<EventLog>,
        revocations: Arc<Revocations>,
        sessions: Arc<Sessions>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let (told, waiting) = mpsc::channel(WAITING);
        tokio::spawn(tell(waiting, sessions, Arc::clone(&revocations), metrics.signals.clone()));
        let (events, signals) = (metrics.events.clone(), metrics.signals.clone());
        let state_errors = metrics.state_errors.clone();
        Arc::new(Self { log, revocations, events, signals, state_errors, told })
    }

    /// Counts and logs a signal that was rejected. `sender` is a configured name, and `why` contains
    /// nothing from the signal.
    pub fn refused(&self, source: EventSource, sender: Option<&str>, why: &'static str) {
        self.ignored(source);
        tracing::info!(source = source.as_str(), sender, why, "signal rejected");
    }

    /// Counts a signal that had no effect. Signals over the rate limit are only counted: log lines
    /// would be a flood as well.
    pub fn ignored(&self, source: EventSource) {
        self.signals.with_label_values(&[source.as_str(), "none", "no"]).inc();
    }

    /// Makes the events of a signal durable, then puts them in force. The tokens in use that it ended are
    /// counted afterwards, without delaying the sender.
    ///
    /// # Errors
    /// When the store cannot be written; nothing of the signal is in force then.
    pub async fn publish(&self, signal: Signal, now: Now) -> Result<(), StoreError> {
        let Signal { source, sender, events, passed_over } = &signal;
        let before = self.in_force();
        if !events.is_empty() {
            let stored = self.log.publish(events.clone(), *source, now).await;
            stored.inspect_err(|error| {
                self.ignored(*source);
                self.state_errors.with_label_values(&[error.kind()]).inc();
                tracing::error!(source = source.as_str(), sender, %error, "cannot store a signal");
            })?;
        }
        let kinds = events.iter().map(|event| event.kind.as_str());
        for kind in kinds.chain(passed_over.iter().copied()) {
            self.events.with_label_values(&[kind, source.as_str()]).inc();
        }
        self.tell(signal, before).await;
        Ok(())
    }

    /// Returns the revocations in force, to compare with those after a signal.
    #[must_use]
    pub fn in_force(&self) -> Arc<Snapshot> {
        self.revocations.load_full()
    }

    /// Queues a signal whose events are already in force for counting and logging; `before` are the
    /// revocations in force before it.
    pub async fn tell(&self, signal: Signal, before: Arc<Snapshot>) {
        // The task ends only with the process, and then the count no longer matters.
        drop(self.told.send(Uncounted { signal, before }).await);
    }
}

/// Counts the tokens that signals ended, and reports them in the log and the metrics.
async fn tell(
    mut waiting: mpsc::Receiver<Uncounted>,
    sessions: Arc<Sessions>,
    revocations: Arc<Revocations>,
    counted: IntCounterVec,
) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, AT_ONCE).await > 0 {
        let (began, told) = (Instant::now(), std::mem::take(&mut batch));
        if told.iter().all(|stored| stored.signal.events.is_empty()) {
            report(&told, &HashMap::new(), &counted);
            continue;
        }
        let (sessions, revocations) = (Arc::clone(&sessions), Arc::clone(&revocations));
        let looked = tokio::task::spawn_blocking(move || {
            let ended = count(&told, &sessions, &revocations.load_full());
            (told, ended)
        });
        // An error means that the process is ending.
        let Ok((told, ended)) = looked.await else { return };
        report(&told, &ended, &counted);
        tokio::time::sleep(began.elapsed().saturating_mul(REST).min(LONGEST_REST)).await;
    }
}

/// The longest pause between scans, so that a slow scan does not delay the report for long.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Identifies an event: the index of its signal, and its index in the signal.
type Place = (usize, usize);

/// Counts, for each event, the tokens in use that were in force before and that it ended. If several events end
/// a token, the first one counts.
fn count(told: &[Uncounted], sessions: &Sessions, after: &Snapshot) -> HashMap<Place, usize> {
    let mut named = HashMap::<Key, Vec<Place>, AsIs>::default();
    for (place, stored) in told.iter().enumerate() {
        for (number, event) in stored.signal.events.iter().enumerate() {
            named.entry(event.key).or_default().push((place, number));
        }
    }
    let mut ended = HashMap::new();
    sessions.each_in_use(Now::read(), |session| {
        let facts = facts(session);
        let keys =
            [Some(facts.token.0), facts.subject.map(|subject| subject.0), facts.client.map(|key| key.0)];
        let names = facts.names.iter().flat_map(|names| names.keys());
        let keys = keys.into_iter().flatten().chain([facts.issuer.0]).chain(names);
        let places = keys.filter_map(|key| named.get(&key)).flatten();
        let ending = places.filter(|(place, number)| {
            let stored = told.get(*place);
            let event = stored.and_then(|stored| stored.signal.events.get(*number));
            event.is_some_and(|event| reaches(event, &facts))
        });
        let Some(first) = ending.min() else { return };
        let now = Now::read();
        // A session does not know its token's role version; assume that the token was in force before.
        let latest = TokenFacts { role_version: Some(u64::MAX), ..facts.clone() };
        let was_in_force =
            |place: usize| told.get(place).is_some_and(|stored| stored.before.judge(&latest, now).is_none());
        // A signal that was undone and is delivered again ends nothing.
        if was_in_force(first.0) && after.judge(&facts, now).is_some() {
            *ended.entry(*first).or_insert(0) += 1;
        }
    });
    ended
}

/// Whether an event that names a token by one of its keys ends it. A session does not know the role version, so
/// only the time is compared, as for a token without one.
fn reaches(event: &Event, facts: &TokenFacts) -> bool {
    event.kind == EventKind::TokenRevoked || facts.issued_at.as_secs() <= event.at.as_secs()
}

fn facts(session: &Session) -> TokenFacts {
    let row = session.row();
    TokenFacts {
        token: row.token,
        issuer: IssuerKey::new(&row.issuer),
        subject: row.subject,
        client: row.client.as_ref().map(|client| ClientKey::new(&row.issuer, client)),
        issued_at: row.issued_at.min(row.first_used_at),
        role_version: None,
        names: row.names,
    }
}

fn report(told: &[Uncounted], ended: &HashMap<Place, usize>, counted: &IntCounterVec) {
    for (place, Uncounted { signal, .. }) in told.iter().enumerate() {
        let Signal { source, sender, events, passed_over } = signal;
        let mut by_type = Vec::<(&str, usize)>::new();
        for (number, event) in events.iter().enumerate() {
            let count = ended.get(&(place, number)).copied().unwrap_or(0);
            match by_type.iter_mut().find(|(word, _)| *word == event.kind.as_str()) {
                Some((_, sum)) => *sum += count,
                None => by_type.push((event.kind.as_str(), count)),
            }
        }
        if !passed_over.is_empty() {
            by_type.push(("none", 0));
        }
        for (word, count) in &by_type {
            let matched = if *count > 0 { "yes" } else { "no" };
            counted.with_label_values(&[source.as_str(), word, matched]).inc();
        }
        let total: usize = by_type.iter().map(|(_, count)| count).sum();
        let types: Vec<&str> = by_type.iter().map(|(word, _)| *word).filter(|word| *word != "none").collect();
        let (source, types, passed_over) = (source.as_str(), types.join(" "), passed_over.join(" "));
        tracing::info!(source, sender, types, passed_over, tokens_ended = total, "signal");
    }
}

#[cfg(test)]
mod tests;
