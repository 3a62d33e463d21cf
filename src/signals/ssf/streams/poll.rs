//! Polling (RFC 8936): what to request, what to acknowledge, and when to poll again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::jose::json;

/// The most tokens requested at once.
const AT_ONCE: usize = 100;
/// A response that takes at least this long means that the transmitter supports long polling.
const HELD: Duration = Duration::from_secs(1);
/// The pause before polling a transmitter without long polling again.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest pause that a transmitter can request.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The outcome of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivered {
    /// It is durable and in force.
    Durable,
    /// It is invalid: the error code and its description.
    Refused(&'static str, String),
    /// It could not be processed now.
    NotNow,
}

/// A poll response of the transmitter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Polled {
    /// The tokens by their `jti`.
    pub(super) sets: Vec<(String, String)>,
    /// The ids of entries that are not tokens.
    pub(super) unreadable: Vec<String>,
    /// Whether more tokens are available.
    pub(super) more: bool,
}

impl Polled {
    /// Parses a response with status 200.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let mut members =
            json::object(body).map_err(|_why| "the poll response is not a JSON object".to_owned())?;
        let (mut tokens, mut unreadable) = (Vec::new(), Vec::new());
        match members.remove("sets") {
            Some(Value::Object(sets)) => {
                for (jti, set) in sets {
                    if let Value::String(set) = set {
                        tokens.push((jti, set));
                    } else {
                        unreadable.push(jti);
                    }
                }
            }
            None => {}
            Some(_) => return Err("`sets` of the poll response is not an object".to_owned()),
        }
        Ok(Self { sets: tokens, unreadable, more: members.get("moreAvailable") == Some(&Value::Bool(true)) })
    }
}

/// The state of polling one endpoint.
#[derive(Debug)]
pub(super) struct PollExchange {
    /// Tokens that are durable but not acknowledged yet.
    acks: BTreeSet<String>,
    /// Invalid tokens whose errors have not been reported yet.
    errors: BTreeMap<String, (&'static str, String)>,
    at_once: usize,
    failures: u32,
}

impl PollExchange {
    pub(super) const fn new() -> Self {
        Self { acks: BTreeSet::new(), errors: BTreeMap::new(), at_once: AT_ONCE, failures: 0 }
    }

    /// The body of the next request. It acknowledges only durable tokens.
    pub(super) fn request(&self) -> Value {
        let errors = self
            .errors
            .iter()
            .map(|(jti, (err, description))| (jti.clone(), json!({"err": err, "description": description})));
        let errors: Map<String, Value> = errors.collect();
        let mut request = Map::from_iter([
            ("maxEvents".to_owned(), json!(self.at_once)),
            ("returnImmediately".to_owned(), json!(false)),
            ("ack".to_owned(), json!(self.acks)),
        ]);
        if !errors.is_empty() {
            request.insert("setErrs".to_owned(), Value::Object(errors));
        }
        Value::Object(request)
    }

    /// Whether the next request describes errors, whose language must be named.
    pub(super) fn describes(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Processes the outcome of the tokens of a response that arrived after `took`; returns how long to wait
    /// before the next request.
    pub(super) fn delivered(
        &mut self,
        delivered: Vec<(String, Delivered)>,
        more: bool,
        took: Duration,
    ) -> Duration {
        // The last request has reported these.
        let (acked, failed) = (std::mem::take(&mut self.acks), std::mem::take(&mut self.errors));
        let is_empty = delivered.is_empty();
        let (mut advanced, mut waits) = (false, false);
        for (jti, became) in delivered {
            advanced |= !acked.contains(&jti) && !failed.contains_key(&jti);
            match became {
                Delivered::Durable => drop(self.acks.insert(jti)),
                Delivered::Refused(err, description) => drop(self.errors.insert(jti, (err, description))),
                Delivered::NotNow => waits = true,
            }
        }
        if waits || (!is_empty && !advanced) {
            // Polling again at once would return the same tokens.
            return self.pause();
        }
        self.failures = 0;
        self.at_once = (self.at_once * 2).min(AT_ONCE);
        if more || !is_empty || took >= HELD { Duration::ZERO } else { PAUSE }
    }

    /// No response arrived within the timeout: the transmitter may use a longer long poll. What was to be
    /// acknowledged will be acknowledged again.
    pub(super) const fn nothing() -> Duration {
        Duration::ZERO
    }

    /// The response was too large, so request fewer tokens.
    pub(super) fn too_large(&mut self) -> Duration {
        if self.at_once == 1 {
            return self.pause();
        }
        self.at_once /= 2;
        Duration::ZERO
    }

    /// Handles a missing or unusable response, or a requested pause.
    pub(super) fn failed(&mut self, wait: Option<Duration>) -> Duration {
        let pause = self.pause();
        wait.map_or(pause, |wait| wait.clamp(PAUSE, LONGEST_WAIT))
    }

    fn pause(&mut self) -> Duration {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(999);

    fn durable(jtis: &[&str]) -> Vec<(String, Delivered)> {
        jtis.iter().map(|jti| ((*jti).to_owned(), Delivered::Durable)).collect()
    }

    #[test]
    fn answers_are_read_and_garbage_is_not() {
        let read = |text: &str| Polled::read(text.as_bytes());
        let sets = |jtis: &[&str]| {
            jtis.iter().map(|jti| ((*jti).to_owned(), "x.y.z".to_owned())).collect::<Vec<_>>()
        };
        for (text, tokens, unreadable, more) in [
            (r#"{"sets":{}}"#, vec![], vec![], false),
            ("{}", vec![], vec![], false),
            (r#"{"sets":{"a":"x.y.z","b":"x.y.z"},"moreAvailable":true}"#, sets(&["a", "b"]), vec![], true),
            (r#"{"sets":{"a":7,"b":"x.y.z"},"moreAvailable":"true"}"#, sets(&["b"]), vec!["a"], false),
        ] {
            let polled = read(text).unwrap();
            assert_eq!(
                (polled.sets, polled.unreadable.as_slice(), polled.more),
                (tokens, &*unreadable.iter().map(|jti| (*jti).to_owned()).collect::<Vec<_>>(), more),
                "{text}"
            );
        }
        for garbage in [
            "",
            "[]",
            "null",
            "<html>",
            r#"{"sets":[]}"#,
            r#"{"sets":null}"#,
            r#"{"sets":{"a":"x","a":"y"}}"#,
        ] {
            assert!(read(garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn only_what_is_durable_is_acknowledged_and_only_until_it_was_heard() {
        let mut poll = PollExchange::new();
        assert_eq!(poll.request(), json!({"maxEvents": 100, "returnImmediately": false, "ack": []}));
        let mut delivered = durable(&["b", "a"]);
        delivered.push(("c".to_owned(), Delivered::NotNow));
        delivered.push(("d".to_owned(), Delivered::Refused("invalid_key", "no key".to_owned())));
        assert_eq!(poll.delivered(delivered, false, QUICK), PAUSE, "the third is not durable");
        let expected = json!({
            "maxEvents": 100, "returnImmediately": false, "ack": ["a", "b"],
            "setErrs": {"d": {"err": "invalid_key", "description": "no key"}},
        });
        assert!(poll.describes());
        assert_eq!(poll.request(), expected);
        poll.failed(None);
        assert_eq!(poll.request(), expected, "nobody heard");
        poll.delivered(durable(&["c"]), false, QUICK);
        assert_eq!((poll.request()["ack"].clone(), poll.describes()), (json!(["c"]), false));
        poll.delivered(Vec::new(), false, QUICK);
        assert_eq!(poll.request()["ack"], json!([]));
    }

    #[test]
    fn the_transmitter_is_asked_again_as_soon_as_there_may_be_more() {
        let mut poll = PollExchange::new();
        for (tokens, more, took, wait) in [
            (vec![], false, QUICK, PAUSE),
            (vec![], false, HELD, Duration::ZERO),
            (vec![], true, QUICK, Duration::ZERO),
            (vec!["a"], false, QUICK, Duration::ZERO),
            (vec!["b"], true, QUICK, Duration::ZERO),
            (vec![], false, QUICK, PAUSE),
        ] {
            assert_eq!(poll.delivered(durable(&tokens), more, took), wait, "{tokens:?} {more} {took:?}");
        }
    }

    #[test]
    fn the_same_tokens_again_and_again_do_not_make_it_hurry() {
        let mut poll = PollExchange::new();
        assert_eq!(poll.delivered(durable(&["a"]), true, HELD), Duration::ZERO);
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(poll.delivered(durable(&["a"]), true, HELD), Duration::from_secs(wait));
        }
        assert_eq!(poll.delivered(durable(&["a", "b"]), true, HELD), Duration::ZERO, "one is new");
        assert_eq!(poll.failed(None), PAUSE, "the pauses begin anew");
    }

    #[test]
    fn failures_are_paused_after_and_a_wait_is_kept() {
        let mut poll = PollExchange::new();
        for (wait, expected) in [
            (None, 1),
            (None, 2),
            (Some(Duration::from_secs(7)), 7),
            (Some(Duration::ZERO), 1),
            (Some(Duration::from_secs(1_000_000)), 3600),
            (None, 30),
        ] {
            assert_eq!(poll.failed(wait), Duration::from_secs(expected), "{wait:?}");
        }
    }

    #[test]
    fn less_is_asked_for_when_an_answer_is_too_large() {
        let mut poll = PollExchange::new();
        for at_once in [50, 25, 12, 6, 3, 1] {
            assert_eq!(poll.too_large(), Duration::ZERO);
            assert_eq!(poll.request()["maxEvents"], json!(at_once));
        }
        assert_eq!((poll.too_large(), poll.too_large()), (PAUSE, PAUSE * 2));
        assert_eq!(poll.request()["maxEvents"], json!(1));
        for at_once in [2, 4, 8, 16, 32, 64, 100, 100] {
            poll.delivered(Vec::new(), false, HELD);
            assert_eq!(poll.request()["maxEvents"], json!(at_once));
        }
    }
}
