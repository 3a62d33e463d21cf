//! How the signals of a transmitter are delivered: pushed or polled, on a stream created manually or by the gate.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::Url;
use crate::signals::Concealed;

/// How signals get here, and what the gate does for that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transmission {
    /// Pushed or fetched.
    pub delivery: SignalDelivery,
    /// The stream that the gate makes and keeps; `None`: it was made by hand, or there is none.
    pub stream: Option<KeptStream>,
    /// How often a verification event is asked for on that stream; `None`: never.
    pub heartbeat: Option<Duration>,
    /// Whether tokens of the subjects' issuer are refused while the heartbeat is overdue.
    pub refuse_when_stale: bool,
    /// PEM file with the roots for the transmitter's URLs; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// Plain `http` is allowed to any host; otherwise only to loopback.
    pub insecure_http: bool,
}

/// Which side opens connections (RFC 8935, RFC 8936).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalDelivery {
    /// The transmitter, to this endpoint of the gate; `None` where nobody is told it.
    Push(Option<String>),
    /// The gate. The place is said by the transmitter's stream, unless that was made by hand.
    Poll(Option<PollByHand>),
}

impl Default for SignalDelivery {
    fn default() -> Self {
        Self::Push(None)
    }
}

/// Where to fetch signals from a stream that was made by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollByHand {
    /// The endpoint.
    pub url: Url,
    /// The value of the `Authorization` field.
    pub authorization: Option<Concealed>,
}

/// A stream that the gate makes and keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStream {
    /// How the transmitter's API is entered.
    pub access: StreamAccess,
    /// The event types to ask for; none: all that have a meaning here.
    pub events: Vec<String>,
    /// Whether each subject whose token is seen is added to the stream.
    pub add_subjects: bool,
}

/// How a transmitter's API is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamAccess {
    /// With this bearer token.
    Token(Concealed),
    /// With tokens for the client's credentials (RFC 6749 §4.4).
    Client {
        /// The token endpoint.
        token_url: Url,
        /// `client_id`.
        id: String,
        /// `client_secret`.
        secret: Concealed,
        /// What is asked for.
        scopes: Vec<String>,
    },
}
