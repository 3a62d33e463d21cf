//! The stream configuration that the gate wants and that the transmitter reports (SSF 1.0 §8.1.1). Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::jose::json;
use crate::signals::Concealed;

/// The delivery method of RFC 8935.
pub(super) const PUSH: &str = "urn:ietf:rfc:8935";
/// The delivery method of RFC 8936.
pub(super) const POLL: &str = "urn:ietf:rfc:8936";

/// The event types that have an effect here.
const MEANINGFUL: [&str; 7] = [
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "https://schemas.openid.net/secevent/caep/event-type/credential-change",
    "https://schemas.openid.net/secevent/caep/event-type/token-claims-change",
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
];

/// The longest interval that a transmitter can prescribe, in seconds.
const LONGEST_INTERVAL: u64 = 86_400;

/// The stream that the configuration asks for.
#[derive(Debug)]
pub(super) struct WantedStream {
    /// The configured name of the transmitter, by which the stream is found again.
    pub(super) name: String,
    /// The issuer of its events.
    pub(super) issuer: String,
    /// The required `aud` of its events.
    pub(super) audience: String,
    /// The URL that the transmitter pushes to; `None` if the gate polls.
    pub(super) endpoint: Option<String>,
    /// The `Authorization` value that the transmitter sends with each push.
    pub(super) authorization: Option<Concealed>,
    /// The event types to request; empty for all that have an effect here.
    pub(super) events: Vec<String>,
}

/// A stream as the transmitter reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KnownStream {
    pub(super) id: String,
    issuer: Option<String>,
    audiences: Vec<String>,
    method: String,
    /// The URL that it pushes to, or at which it is polled.
    pub(super) endpoint: Option<String>,
    authorization: Option<String>,
    requested: Option<Vec<String>>,
    delivered: Option<Vec<String>>,
    description: Option<String>,
    /// The shortest allowed interval between verification requests.
    pub(super) min_verification: Duration,
    /// After this time without an API call, the transmitter may pause or delete the stream.
    pub(super) inactivity: Option<Duration>,
}

/// The status of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::signals::ssf) enum StreamStatus {
    /// The transmitter sends events.
    Enabled,
    /// The transmitter keeps events for later.
    Paused,
    /// The transmitter discards events.
    Disabled,
}

impl StreamStatus {
    /// Parses the word used in events and responses.
    pub(in crate::signals::ssf) fn read(word: &str) -> Option<Self> {
        [Self::Enabled, Self::Paused, Self::Disabled].into_iter().find(|status| status.as_str() == word)
    }

    pub(in crate::signals::ssf) const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

impl WantedStream {
    /// The delivery method.
    pub(super) fn method(&self) -> &'static str {
        if self.endpoint.is_some() { PUSH } else { POLL }
    }

    fn description(&self) -> String {
        format!("Portcullis, event transmitter {}", self.name)
    }

    fn events(&self) -> Vec<&str> {
        match self.events.is_empty() {
            true => MEANINGFUL.to_vec(),
            false => self.events.iter().map(String::as_str).collect(),
        }
    }

    /// The body of the request that creates the stream, or updates the one with this id.
    pub(super) fn body(&self, id: Option<&str>) -> Value {
        let mut delivery = Map::from_iter([("method".to_owned(), json!(self.method()))]);
        delivery.extend(self.endpoint.iter().map(|endpoint| ("endpoint_url".to_owned(), json!(endpoint))));
        let repeated = self.authorization.as_ref().filter(|_| self.endpoint.is_some());
        delivery.extend(repeated.map(|value| ("authorization_header".to_owned(), json!(value.reveal()))));
        let mut body = Map::from_iter([
            ("events_requested".to_owned(), json!(self.events())),
            ("delivery".to_owned(), Value::Object(delivery)),
            ("description".to_owned(), json!(self.description())),
        ]);
        body.extend(id.map(|id| ("stream_id".to_owned(), json!(id))));
        Value::Object(body)
    }

    /// Chooses the stream to maintain: the one with our description, or with our endpoint; with `any`,
    /// otherwise the first, because the transmitter allows no further stream.
    pub(super) fn choose(&self, mut streams: Vec<KnownStream>, any: bool) -> Option<KnownStream> {
        let described = streams.iter().position(|one| one.description.as_ref() == Some(&self.description()));
        let pushes_here = |one: &KnownStream| self.endpoint.is_some() && one.endpoint == self.endpoint;
        let place = described
            .or_else(|| streams.iter().position(pushes_here))
            .or_else(|| streams.iter().position(|one| any && one.method == self.method()))
            .or_else(|| (any && !streams.is_empty()).then_some(0))?;
        Some(streams.swap_remove(place))
    }

    /// Whether the stream must be updated. Values that the transmitter does not report are assumed to be equal,
    /// except the secret for pushes, which may have changed.
    pub(super) fn differs(&self, known: &KnownStream) -> bool {
        let requested = known.requested.as_ref();
        let other_events = requested.is_some_and(|requested| {
            sorted(requested.iter().map(String::as_str)) != sorted(self.events().into_iter())
        });
        let other_place = self.endpoint.is_some() && known.endpoint != self.endpoint;
        let repeats = |sent: &Concealed| {
            known.authorization.as_ref().is_some_and(|repeated| sent.matches(repeated.as_bytes()))
        };
        let other_secret = self.endpoint.is_some() && !self.authorization.as_ref().is_none_or(repeats);
        known.method != self.method() || other_place || other_events || other_secret
    }

    /// What an operator should know about the stream.
    pub(super) fn complaints(&self, known: &KnownStream) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(issuer) = known.issuer.as_ref().filter(|issuer| **issuer != self.issuer) {
            complaints.push(format!("its events will be signed by {issuer:?}, which differs from `issuer`"));
        }
        if !known.audiences.is_empty() && !known.audiences.contains(&self.audience) {
            complaints.push(format!(
                "the audience of its events will be {:?}, which differs from `audience`",
                known.audiences
            ));
        }
        let delivers =
            |event: &str| known.delivered.as_ref().is_none_or(|all| all.iter().any(|one| one == event));
        if !delivers(MEANINGFUL[0]) && self.events().contains(&MEANINGFUL[0]) {
            complaints.push("the transmitter does not deliver session-revoked on the stream".to_owned());
        }
        complaints
    }
}

impl KnownStream {
    /// Parses the description of one stream.
    pub(super) fn read(document: &[u8]) -> Result<Self, String> {
        let members =
            json::object(document).map_err(|_why| "the response is not a JSON object".to_owned())?;
        Self::from_members(&members)
    }

    /// Parses a response that contains one stream or a list of them.
    pub(super) fn list(document: &[u8]) -> Result<Vec<Self>, String> {
        // Wrapped in an object, because the strict parser only accepts objects.
        let wrapped = [b"{\"all\":", document, b"}"].concat();
        let members = json::object(&wrapped).map_err(|_why| "the response is not JSON".to_owned())?;
        match members.get("all") {
            Some(Value::Array(all)) => {
                all.iter().map(|one| Self::from_members(one.as_object().unwrap_or(&Map::new()))).collect()
            }
            Some(Value::Object(one)) if one.is_empty() => Ok(Vec::new()),
            Some(Value::Object(one)) => Self::from_members(one).map(|one| vec![one]),
            _ => Err("the response is not a list of streams".to_owned()),
        }
    }

    fn from_members(members: &Map<String, Value>) -> Result<Self, String> {
        let text = |members: &Map<String, Value>, name: &str| {
            members.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let list = |name: &str| match members.get(name) {
            Some(Value::Array(all)) => {
                Some(all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            Some(Value::String(one)) => Some(vec![one.clone()]),
            _ => None,
        };
        let seconds = |name: &str| {
            let seconds = members.get(name).and_then(Value::as_u64).filter(|seconds| *seconds > 0);
            seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_INTERVAL)))
        };
        let nothing = Map::new();
        let delivery = members.get("delivery").and_then(Value::as_object).unwrap_or(&nothing);
        let id = text(members, "stream_id").filter(|id| !id.is_empty());
        Ok(Self {
            id: id.ok_or("the response has no stream_id")?,
            issuer: text(members, "iss"),
            audiences: list("aud").unwrap_or_default(),
            method: text(delivery, "method").unwrap_or_default(),
            endpoint: text(delivery, "endpoint_url"),
            authorization: text(delivery, "authorization_header"),
            requested: list("events_requested"),
            delivered: list("events_delivered"),
            description: text(members, "description"),
            min_verification: seconds("min_verification_interval").unwrap_or_default(),
            inactivity: seconds("inactivity_timeout"),
        })
    }
}

fn sorted<'a>(events: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut events: Vec<&str> = events.collect();
    events.sort_unstable();
    events.dedup();
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> WantedStream {
        WantedStream {
            name: "okta".to_owned(),
            issuer: "https://idp.example.com".to_owned(),
            audience: "https://gate.example.com".to_owned(),
            endpoint: Some("https://gate.example.com/signals/ssf/okta".to_owned()),
            authorization: None,
            events: Vec::new(),
        }
    }

    /// The stream as the transmitter reports it after its creation.
    fn made(wanted: &WantedStream) -> Value {
        let mut made = wanted.body(Some("s1"));
        made["iss"] = json!(wanted.issuer);
        made["aud"] = json!([wanted.audience]);
        made["events_delivered"] = made["events_requested"].clone();
        made
    }

    fn known(described: &Value) -> KnownStream {
        KnownStream::read(described.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_stream_is_asked_for_with_everything_that_has_a_meaning() {
        let body = wanted().body(None);
        assert_eq!(body["events_requested"].as_array().unwrap().len(), MEANINGFUL.len());
        assert_eq!(
            body["delivery"],
            json!({"method": "urn:ietf:rfc:8935", "endpoint_url": "https://gate.example.com/signals/ssf/okta"})
        );
        assert_eq!(body["description"], "Portcullis, event transmitter okta");
        assert_eq!(body.get("stream_id"), None);
        let secret = || Some(Concealed::new("Bearer x".to_owned()));
        let with = WantedStream { authorization: secret(), events: vec!["urn:e".to_owned()], ..wanted() };
        let body = with.body(Some("s1"));
        assert_eq!(body["delivery"]["authorization_header"], "Bearer x");
        assert_eq!((&body["events_requested"], &body["stream_id"]), (&json!(["urn:e"]), &json!("s1")));
        let polled = WantedStream { endpoint: None, authorization: secret(), ..wanted() };
        assert_eq!(polled.body(None)["delivery"], json!({"method": "urn:ietf:rfc:8936"}));
    }

    #[test]
    fn a_stream_is_changed_exactly_when_it_is_known_to_differ() {
        let wanted = wanted();
        assert!(!wanted.differs(&known(&made(&wanted))));
        let mut reversed = made(&wanted);
        reversed["events_requested"].as_array_mut().unwrap().reverse();
        reversed["description"] = json!("by hand");
        assert!(!wanted.differs(&known(&reversed)));
        reversed.as_object_mut().unwrap().remove("events_requested");
        assert!(!wanted.differs(&known(&reversed)), "not told");
        for (pointer, value) in [
            ("/delivery/method", json!("urn:ietf:rfc:8936")),
            ("/delivery/endpoint_url", json!("https://old.example.com/")),
            ("/delivery/endpoint_url", json!(null)),
            ("/events_requested", json!([MEANINGFUL[0]])),
        ] {
            let mut other = made(&wanted);
            *other.pointer_mut(pointer).unwrap() = value;
            assert!(wanted.differs(&known(&other)), "{other}");
        }
        let secret = WantedStream { authorization: Some(Concealed::new("Bearer x".to_owned())), ..wanted };
        assert!(!secret.differs(&known(&made(&secret))), "repeated");
        let mut silent = made(&secret);
        silent["delivery"].as_object_mut().unwrap().remove("authorization_header");
        assert!(secret.differs(&known(&silent)), "it may be another one");
        let polled = WantedStream { endpoint: None, ..secret };
        let mut described = made(&polled);
        described["delivery"]["endpoint_url"] = json!("https://idp.example.com/poll");
        assert!(!polled.differs(&known(&described)), "where to poll is the transmitter's to say");
    }

    #[test]
    fn the_stream_of_this_gate_is_found_among_others() {
        let wanted = wanted();
        let ours = || known(&made(&wanted));
        let mut by_hand = made(&wanted);
        by_hand["description"] = json!("by hand");
        by_hand["stream_id"] = json!("s2");
        let mut other = by_hand.clone();
        other["stream_id"] = json!("s3");
        other["delivery"]["endpoint_url"] = json!("https://other.example.com/");
        let mut polled = other.clone();
        polled["stream_id"] = json!("s4");
        polled["delivery"]["method"] = json!(POLL);
        let (by_hand, other, polled) = (known(&by_hand), known(&other), known(&polled));
        let chosen = |streams: &[&KnownStream], any| {
            wanted.choose(streams.iter().copied().cloned().collect(), any).map(|one| one.id)
        };
        for (streams, expected, any) in [
            (vec![&other, &by_hand, &ours()], Some("s1"), Some("s1")),
            (vec![&other, &by_hand], Some("s2"), Some("s2")),
            (vec![&polled, &other], None, Some("s3")),
            (vec![&polled], None, Some("s4")),
            (vec![], None, None),
        ] {
            assert_eq!(chosen(&streams, false).as_deref(), expected);
            assert_eq!(chosen(&streams, true).as_deref(), any);
        }
    }

    #[test]
    fn descriptions_are_read_one_or_many_and_garbage_is_not() {
        let one = made(&wanted());
        for (text, count) in [
            (one.to_string(), Some(1)),
            (json!([one]).to_string(), Some(1)),
            (json!([one, one]).to_string(), Some(2)),
            ("[]".to_owned(), Some(0)),
            ("{}".to_owned(), Some(0)),
            (json!([one, {}]).to_string(), None),
            (json!({"stream_id": ""}).to_string(), None),
            (json!({"stream_id": 7}).to_string(), None),
            ("null".to_owned(), None),
            ("\"s1\"".to_owned(), None),
            (String::new(), None),
            ("{}}".to_owned(), None),
            ("<html>".to_owned(), None),
        ] {
            assert_eq!(KnownStream::list(text.as_bytes()).ok().map(|all| all.len()), count, "{text}");
        }
        let mut described = one;
        described["min_verification_interval"] = json!(60);
        described["inactivity_timeout"] = json!(9_000_000_000_u64);
        let read = known(&described);
        assert_eq!(read.min_verification, Duration::from_secs(60));
        assert_eq!(read.inactivity, Some(Duration::from_secs(86_400)));
        for (min_verification, inactivity, read) in [
            (json!(-1), json!("x"), (0, None)),
            (json!(0), json!(0), (0, None)),
            (json!(1), json!(1), (1, Some(1))),
        ] {
            described["min_verification_interval"] = min_verification;
            described["inactivity_timeout"] = inactivity;
            let known = known(&described);
            assert_eq!((known.min_verification.as_secs(), known.inactivity.map(|it| it.as_secs())), read);
        }
    }

    #[test]
    fn an_operator_hears_what_will_not_work() {
        let wanted = wanted();
        let complaints = |pointer: &str, value: Value| {
            let mut other = made(&wanted);
            *other.pointer_mut(pointer).unwrap() = value;
            wanted.complaints(&known(&other))
        };
        assert_eq!(complaints("/iss", json!(wanted.issuer)), [""; 0]);
        for (pointer, value, said) in [
            ("/iss", json!("https://other.example"), "which differs from `issuer`"),
            ("/aud", json!("https://other.example"), "which differs from `audience`"),
            ("/events_delivered", json!(["urn:other"]), "does not deliver session-revoked"),
        ] {
            let [complaint] = &*complaints(pointer, value) else { panic!("{pointer}") };
            assert!(complaint.contains(said), "{complaint}");
        }
    }
}
