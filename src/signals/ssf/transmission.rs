//! How the signals of a transmitter are delivered: pushed or polled, on a stream created manually or by the gate.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::Url;
use crate::signals::Concealed;

/// The delivery of a transmitter's signals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transmission {
    /// Push or poll.
    pub delivery: SignalDelivery,
    /// The stream that the gate creates and maintains; `None` if it was created manually or does not exist.
    pub stream: Option<KeptStream>,
    /// How often a verification event is requested on that stream; `None` for never.
    pub heartbeat: Option<Duration>,
    /// Whether tokens of the subjects' issuer are rejected while the heartbeat is overdue.
    pub refuse_when_stale: bool,
    /// PEM file with the CA certificates for the transmitter's URLs; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Whether plain `http` is allowed to any host, instead of only to loopback.
    pub insecure_http: bool,
}

impl Transmission {
    /// Whether the gate maintains a stream or polls.
    #[must_use]
    pub fn needs_upkeep(&self) -> bool {
        self.stream.is_some() || matches!(self.delivery, SignalDelivery::Poll(Some(_)))
    }
}

/// Which side opens the connections (RFC 8935, RFC 8936).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalDelivery {
    /// The transmitter pushes to this endpoint of the gate; `None` if the gate does not register it.
    Push(Option<String>),
    /// The gate polls. The transmitter's stream names the endpoint unless it was created manually.
    Poll(Option<PollByHand>),
}

impl Default for SignalDelivery {
    fn default() -> Self {
        Self::Push(None)
    }
}

/// The polling endpoint of a manually created stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollByHand {
    /// The endpoint.
    pub url: Url,
    /// The value of the `Authorization` field.
    pub authorization: Option<Concealed>,
}

/// A stream that the gate creates and maintains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStream {
    /// The credentials for the transmitter's API.
    pub access: StreamAccess,
    /// The event types to request; empty for all that have an effect here.
    pub events: Vec<String>,
    /// Whether each subject whose token is seen is added to the stream.
    pub add_subjects: bool,
}

/// The credentials for a transmitter's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamAccess {
    /// This bearer token.
    Token(Concealed),
    /// Tokens from the client credentials grant (RFC 6749 §4.4).
    Client {
        /// The token endpoint.
        token_url: Url,
        /// `client_id`.
        id: String,
        /// `client_secret`.
        secret: Concealed,
        /// The requested scopes.
        scopes: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_that_the_gate_makes_or_polls_needs_upkeep() {
        let stream = || KeptStream {
            access: StreamAccess::Token(Concealed::new("t".to_owned())),
            events: Vec::new(),
            add_subjects: false,
        };
        let url = Url::parse("https://idp.example.com/poll", false).unwrap();
        let by_hand = PollByHand { url, authorization: None };
        for (delivery, stream, expected) in [
            (SignalDelivery::Push(None), None, false),
            (SignalDelivery::Push(Some("https://gate.example.com/".to_owned())), None, false),
            (SignalDelivery::Push(Some("https://gate.example.com/".to_owned())), Some(stream()), true),
            (SignalDelivery::Poll(None), None, false),
            (SignalDelivery::Poll(None), Some(stream()), true),
            (SignalDelivery::Poll(Some(by_hand)), None, true),
        ] {
            let transmission = Transmission { delivery, stream, ..Transmission::default() };
            assert_eq!(transmission.needs_upkeep(), expected, "{transmission:?}");
        }
    }
}
