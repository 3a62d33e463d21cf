//! The steps of maintaining a stream, their outcomes, and the resulting changes. Pure.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::description::{KnownStream, POLL, StreamStatus, WantedStream};
use super::metadata::{StreamMetadata, named_url};
use crate::client::Url;
use crate::time::Monotonic;

/// The settings of a maintained stream.
#[derive(Debug)]
pub(super) struct StreamTerms {
    /// How often it is verified; `None` for never.
    pub(super) heartbeat: Option<Duration>,
    /// Whether access tokens are fetched, and therefore expire.
    pub(super) fetches_tokens: bool,
    /// Whether the subjects of tokens are added to the stream.
    pub(super) adds_subjects: bool,
    /// Whether the transmitter may name URLs with plain `http` on any host.
    pub(super) insecure_http: bool,
    /// The stream itself.
    pub(super) wanted: WantedStream,
}

impl StreamTerms {
    /// The URL at which the stream is polled; `None` if it is pushed, or if the transmitter names no usable URL.
    pub(super) fn poll_url(&self, stream: &KnownStream) -> Option<Url> {
        let named = stream.endpoint.as_ref().filter(|_| self.is_polled())?;
        named_url(named, &self.wanted.issuer, self.insecure_http).ok()
    }

    /// What will not work with the stream as it is, at a transmitter with these endpoints.
    pub(super) fn complaints(&self, stream: &KnownStream, metadata: &StreamMetadata) -> Vec<String> {
        let mut complaints = self.wanted.complaints(stream);
        for (is_missing, complaint) in [
            (
                self.heartbeat.is_some() && metadata.verification.is_none(),
                "the transmitter has no verification endpoint, so its heartbeat cannot be confirmed",
            ),
            (
                self.adds_subjects && metadata.add_subject.is_none(),
                "the transmitter has no endpoint for adding subjects",
            ),
            (
                self.is_polled() && self.poll_url(stream).is_none(),
                "the transmitter does not provide a poll endpoint",
            ),
        ] {
            complaints.extend(is_missing.then(|| complaint.to_owned()));
        }
        complaints
    }

    fn is_polled(&self) -> bool {
        self.wanted.method() == POLL
    }
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamStep {
    /// Fetch the transmitter's metadata.
    Discover,
    /// Fetch an access token.
    Authorize,
    /// List the streams.
    Find,
    /// Create the stream.
    Create,
    /// Update the stream with this id, by PATCH or PUT.
    Update(String, UpdateMethod),
    /// Request a verification event on it.
    Verify(String),
    /// Read its status.
    ReadStatus(String),
    /// Add a subject to it.
    AddSubject(String, Arc<str>),
    /// Do nothing before this moment.
    Wait(Monotonic),
}

/// The method for updating a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpdateMethod {
    Patch,
    Put,
}

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamAnswer {
    /// The metadata.
    Metadata(Box<StreamMetadata>),
    /// An access token with this lifetime.
    Token(Duration),
    /// The existing streams.
    Streams(Vec<KnownStream>),
    /// The stream as it is now.
    Stream(Box<KnownStream>),
    /// Its status.
    Status(StreamStatus),
    /// The step succeeded.
    Done,
    /// 429 or 503: try later, perhaps after this time.
    Later(Option<Duration>),
    /// Another status.
    Denied(StatusCode),
    /// No response, or an unusable one.
    Failed(String),
}

/// A change that operators should know about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamNews {
    /// The stream was created.
    Made,
    /// The stream already existed.
    Found,
    /// The stream existed and was updated.
    Changed,
    /// The transmitter no longer has the stream.
    Forgotten,
    /// The transmitter stopped sending its events.
    Stopped(StreamStatus),
    /// The transmitter sends its events again; contains the previous status.
    Resumed(StreamStatus),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://idp.example.com";

    /// Terms of a stream that is pushed to this endpoint, or polled.
    fn terms(endpoint: Option<&str>) -> StreamTerms {
        StreamTerms {
            heartbeat: None,
            fetches_tokens: false,
            adds_subjects: false,
            insecure_http: false,
            wanted: WantedStream {
                name: "t".to_owned(),
                issuer: ISSUER.to_owned(),
                audience: "https://gate.example.com".to_owned(),
                endpoint: endpoint.map(str::to_owned),
                authorization: None,
                events: Vec::new(),
            },
        }
    }

    fn stream(endpoint: Value) -> KnownStream {
        let described = json!({"stream_id": "s1", "delivery": {"endpoint_url": endpoint}});
        KnownStream::read(described.to_string().as_bytes()).unwrap()
    }

    fn metadata(endpoints: &[&str]) -> StreamMetadata {
        let mut document = json!({"issuer": ISSUER, "configuration_endpoint": format!("{ISSUER}/c")});
        for endpoint in endpoints {
            document[*endpoint] = json!(format!("{ISSUER}/{endpoint}"));
        }
        StreamMetadata::read(document.to_string().as_bytes(), ISSUER, false).unwrap()
    }

    #[test]
    fn what_is_wanted_and_not_offered_is_complained_about() {
        let beating =
            || StreamTerms { heartbeat: Some(Duration::from_secs(60)), ..terms(Some("https://g/")) };
        let adding = || StreamTerms { adds_subjects: true, ..terms(Some("https://g/")) };
        let (verifies, adds) = ("verification_endpoint", "add_subject_endpoint");
        for (terms, named, endpoints, complaint) in [
            (terms(Some("https://g/")), json!("https://g/"), &[][..], None),
            (beating(), json!("https://g/"), &[adds], Some("no verification endpoint")),
            (beating(), json!("https://g/"), &[verifies], None),
            (adding(), json!("https://g/"), &[verifies], Some("no endpoint for adding subjects")),
            (adding(), json!("https://g/"), &[adds], None),
            // A transmitter need not repeat the endpoint that it pushes to.
            (terms(Some("https://g/")), json!(null), &[], None),
            (terms(None), json!("https://idp.example.com/poll"), &[], None),
            (terms(None), json!(null), &[], Some("does not provide a poll endpoint")),
            (terms(None), json!("http://127.0.0.1/poll"), &[], Some("does not provide a poll endpoint")),
        ] {
            let complaints = terms.complaints(&stream(named.clone()), &metadata(endpoints));
            let is_expected = match (&complaints[..], complaint) {
                ([], None) => true,
                ([one], Some(expected)) => one.contains(expected),
                _ => false,
            };
            assert!(is_expected, "{terms:?} {named} {endpoints:?}: {complaints:?}");
        }
    }

    #[test]
    fn only_a_polled_stream_has_a_poll_url() {
        let named = || stream(json!("https://idp.example.com/poll"));
        let url = Url::parse("https://idp.example.com/poll", false).unwrap();
        assert_eq!(terms(None).poll_url(&named()), Some(url));
        assert_eq!(terms(Some("https://g/")).poll_url(&named()), None);
    }
}
