//! All transmitters, with the log that their signals are published to.
//!
//! A token is acknowledged only when its events are durable and in force. Knows nothing about HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::streams::{StreamNotice, UnaskedState};
use super::{Accepted, Answer, Code, KeysAsked, SignalRefusal, Transmitter, Unaccepted};
use crate::signals::{Signal, SignalLog};
use crate::state::StoreError;
use crate::state::record::EventSource;
use crate::time::{Now, Timestamp};

/// Receives the tokens of every configured transmitter.
#[derive(Debug)]
pub struct Receiver {
    transmitters: ArcSwap<Vec<Arc<Transmitter>>>,
    log: Arc<SignalLog>,
    /// When each transmitter, by name, sent the last accepted token.
    heard: Mutex<BTreeMap<String, Timestamp>>,
}

/// Why a token was not acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// It is invalid.
    Refused(SignalRefusal),
    /// The transmitter's keys are unavailable.
    NoKeys,
    /// The store could not save its events.
    Store(StoreError),
}

impl Receiver {
    /// Creates a receiver for these transmitters that publishes to this log.
    #[must_use]
    pub fn new(transmitters: Vec<Arc<Transmitter>>, log: Arc<SignalLog>) -> Self {
        Self { transmitters: ArcSwap::from_pointee(transmitters), log, heard: Mutex::default() }
    }

    /// Replaces the transmitters after a reload.
    pub fn replace(&self, transmitters: Vec<Arc<Transmitter>>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|name, _| transmitters.iter().any(|known| known.settings().name == *name));
        self.transmitters.store(Arc::new(transmitters));
    }

    /// Returns every configured transmitter, each with the time of the last token that this process accepted.
    #[must_use]
    pub fn transmitters(&self) -> Vec<(Arc<Transmitter>, Option<Timestamp>)> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let last = |known: &Arc<Transmitter>| heard.get(&known.settings().name).copied();
        self.transmitters.load().iter().map(|known| (Arc::clone(known), last(known))).collect()
    }

    /// The transmitter of this name.
    #[must_use]
    pub fn transmitter(&self, name: &str) -> Option<Arc<Transmitter>> {
        self.transmitters.load().iter().find(|known| known.settings().name == name).cloned()
    }

    /// Processes a token: when this returns a response, everything that the token says is durable and in force.
    ///
    /// The same token gets the same response again and changes nothing, because events are idempotent.
    ///
    /// # Errors
    /// When the token is rejected, or keys or the store are unavailable; nothing of it is in force then.
    pub async fn deliver(
        &self,
        transmitter: &Transmitter,
        body: &[u8],
        content_type: Option<&str>,
    ) -> Result<Answer, Undelivered> {
        let mut now = Now::read();
        let mut received = transmitter.receive(body, content_type, KeysAsked::Nothing, now.wall);
        if let Err(Unaccepted::Ask(wanted)) = &received {
            transmitter.keys().ask(wanted).await;
            now = Now::read();
            received = transmitter.receive(body, content_type, KeysAsked::Keys, now.wall);
        }
        let name = &transmitter.settings().name;
        let Accepted { events, passed_over, notices, answer } =
            received.map_err(|error| self.undelivered(error, name))?;
        process_notices(transmitter, &notices, now).await.map_err(|error| self.undelivered(error, name))?;
        let passed_over = passed_over.into_iter().map(super::PassedOver::as_str).collect();
        let signal = Signal { source: EventSource::Ssf, sender: name.clone(), events, passed_over };
        self.log.publish(signal, now).await.map_err(Undelivered::Store)?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(name.clone(), now.wall);
        Ok(answer)
    }

    fn undelivered(&self, error: Unaccepted, transmitter: &str) -> Undelivered {
        let refused = |why| self.log.refused(EventSource::Ssf, Some(transmitter), why);
        match error {
            Unaccepted::Refused(refusal) => {
                refused(refusal.description);
                Undelivered::Refused(refusal)
            }
            // The second attempt is final, so here only keys are missing.
            Unaccepted::Ask(_) | Unaccepted::NoKeys => {
                refused("the keys of the transmitter are temporarily unavailable");
                Undelivered::NoKeys
            }
        }
    }
}

/// Processes what the transmitter says about its stream.
async fn process_notices(
    transmitter: &Transmitter,
    notices: &[StreamNotice],
    now: Now,
) -> Result<(), Unaccepted> {
    let Some(watch) = transmitter.watch() else { return Ok(()) };
    for notice in notices {
        watch.notice(notice, now).await.map_err(|UnaskedState| SignalRefusal {
            code: Code::InvalidState,
            description: "no verification with this `state` was requested",
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::EventLog;
    use crate::keys::store::KeyStore;
    use crate::metrics::Metrics;
    use crate::revocations::Revocations;
    use crate::sessions::{self, Sessions};
    use crate::signals::ssf::streams::awaiting;
    use crate::signals::ssf::tests::settings;
    use crate::state::Store;

    #[tokio::test]
    async fn only_the_transmitters_of_the_configuration_in_force_are_known() {
        let metrics = Metrics::new().unwrap();
        let transmitters = |names: &[&str]| -> Vec<Arc<Transmitter>> {
            let one = |name: &&str| {
                let settings = super::super::Settings { name: (*name).to_owned(), ..settings() };
                let keys = KeyStore::new(settings.keys.clone(), metrics.clone());
                Arc::new(Transmitter::new(settings, keys))
            };
            names.iter().map(one).collect()
        };
        let store = Store::in_memory(Now::at_millis(0)).unwrap();
        let revocations = Arc::new(Revocations::new(None));
        let log = EventLog::start(store, Arc::clone(&revocations)).await.unwrap();
        let sessions = sessions::Settings {
            idle_timeouts: None.into(),
            max_tracked: 1,
            leeway: Duration::ZERO,
            saved: false,
        };
        let log = SignalLog::start(log, revocations, Arc::new(Sessions::new(sessions)), &metrics);
        let receiver = Receiver::new(transmitters(&["a", "b"]), log);
        let known = || {
            ["a", "b", "c"].map(|name| receiver.transmitter(name).map(|found| found.settings().name.clone()))
        };
        let names = |names: [Option<&str>; 3]| names.map(|name| name.map(str::to_owned));
        assert_eq!(known(), names([Some("a"), Some("b"), None]));
        let moment = Timestamp::from_secs(7);
        receiver.heard.lock().unwrap().extend(["a", "b"].map(|name| (name.to_owned(), moment)));
        receiver.replace(transmitters(&["b", "c"]));
        assert_eq!(known(), names([None, Some("b"), Some("c")]));
        receiver.replace(transmitters(&["a", "b", "c"]));
        let heard: Vec<_> =
            receiver.transmitters().into_iter().map(|(one, at)| (one.settings().name.clone(), at)).collect();
        let of = |name: &str, at| (name.to_owned(), at);
        assert_eq!(heard, [of("a", None), of("b", Some(moment)), of("c", None)]);
    }

    #[tokio::test]
    async fn a_verification_that_nobody_asked_for_is_rejected_where_the_gate_keeps_the_stream() {
        let keys = || KeyStore::new(settings().keys, Metrics::new().unwrap());
        let keeps = Transmitter::new(settings(), keys()).watched_by(Some(awaiting("a").await));
        let by_hand = Transmitter::new(settings(), keys());
        let of = |state: &str| StreamNotice::Verification(Some(state.to_owned()));
        for (notices, accepted) in [
            (vec![], true),
            (vec![StreamNotice::Verification(None)], true),
            (vec![of("a")], true),
            (vec![of("b")], false),
            (vec![of("a"), of("b")], false),
        ] {
            let heard = process_notices(&keeps, &notices, Now::at_millis(1)).await;
            let code = match heard {
                Ok(()) => None,
                Err(Unaccepted::Refused(refusal)) => Some(refusal.code),
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(code, (!accepted).then_some(Code::InvalidState), "{notices:?}");
            assert_eq!(process_notices(&by_hand, &notices, Now::at_millis(1)).await, Ok(()), "{notices:?}");
        }
    }
}
