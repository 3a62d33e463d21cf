//! Publishes signals: makes the events durable, answers the sender, then counts the tokens in use that were ended.
//!
//! Knows neither how a signal arrived nor its format.

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

/// What one sender said at once.
#[derive(Debug)]
pub struct Signal {
    /// How it came.
    pub source: EventSource,
    /// The sender, as the configuration calls it.
    pub sender: String,
    /// What it comes down to. None: it has no meaning here.
    pub events: Vec<Event>,
    /// What of it has no meaning here, and why.
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

/// A signal that is in force, and whose effect is to be told.
#[derive(Debug)]
struct Uncounted {
    signal: Signal,
    /// What was in force before.
    before: Arc<Snapshot>,
}

/// Signals that wait to be counted. More of them make senders wait.
const WAITING: usize = 4096;
/// Signals that are counted by one look at all tokens in use.
const AT_ONCE: usize = 4096;
/// A look at a million tokens in use takes a second of one core: the next one waits so many times as long.
const REST: u32 = 4;

impl SignalLog {
    /// Publishes to this log, and counts in `sessions` until the last handle is dropped. Needs a runtime.
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

    /// Counts and logs a signal that was not accepted. `sender` is one of the configuration, and `why` repeats nothing of
    /// what was sent.
    pub fn refused(&self, source: EventSource, sender: Option<&str>, why: &'static str) {
        self.ignored(source);
        tracing::info!(source = source.as_str(), sender, why, "signal rejected");
    }

    /// Counts a signal that did not come into force. To refuse one because its sender sends too many leaves no line: that would
    /// be a flood as well.
    pub fn ignored(&self, source: EventSource) {
        self.signals.with_label_values(&[source.as_str(), "none", "no"]).inc();
    }

    /// Makes the events of a signal durable and puts them in force, in this order. The tokens in use that it ended are counted
    /// afterwards: nobody waits for that.
    ///
    /// # Errors
    /// When the store cannot be written; nothing of it is in force then.
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

    /// What is in force now, to be compared with what a signal changed.
    #[must_use]
    pub fn in_force(&self) -> Arc<Snapshot> {
        self.revocations.load_full()
    }

    /// Counts the tokens in use that a signal ended whose events are in force already, and tells of it; `before` is what was
    /// in force before it.
    pub async fn tell(&self, signal: Signal, before: Arc<Snapshot>) {
        // The task ends with the process only; what is in force stays so.
        drop(self.told.send(Uncounted { signal, before }).await);
    }
}

/// Counts what signals ended, and tells it in the log and the metrics.
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
        // An error: the process is ending.
        let Ok((told, ended)) = looked.await else { return };
        report(&told, &ended, &counted);
        tokio::time::sleep(began.elapsed().saturating_mul(REST).min(LONGEST_REST)).await;
    }
}

/// However slow the machine was for a moment, signals are told before long.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Each event by its place: of which signal, and which of its events.
type Place = (usize, usize);

/// How many tokens in use each event ended that were in force before. One that two of them end counts for the first.
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
        // Where the version of its roles would tell, which a session does not know, it counts as in force before.
        let latest = TokenFacts { role_version: Some(u64::MAX), ..facts.clone() };
        let was_in_force =
            |place: usize| told.get(place).is_some_and(|stored| stored.before.judge(&latest, now).is_none());
        // A signal that was taken back, and is delivered again, ends nothing.
        if was_in_force(first.0) && after.judge(&facts, now).is_some() {
            *ended.entry(*first).or_insert(0) += 1;
        }
    });
    ended
}

/// Whether an event that names a token by one of its keys ends it. Of the version of roles a session knows nothing: it goes by
/// the time, as for a token without one.
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
