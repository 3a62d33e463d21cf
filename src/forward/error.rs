//! Why an upstream did not respond to a request, and the status for the client.

use std::fmt;
use std::io;

use http::StatusCode;
use prometheus::IntCounter;

use super::body::{BodyError, RequestBodyError};
use super::http1::BadAnswer;
use crate::metrics::Metrics;

/// Why there is no response.
#[derive(Debug)]
pub enum ForwardError {
    /// No TCP connection within `connect_timeout`: 502.
    Connect(io::Error),
    /// The TLS handshake failed: 502.
    Tls(io::Error),
    /// No response head within `response_timeout`: 504.
    Timeout,
    /// The response violates HTTP: 502.
    BadAnswer(BadAnswer),
    /// The connection ended before a complete response head: 502.
    Closed(io::Error),
    /// The upstream reset the HTTP/2 stream: 502.
    Reset(h2::Reason),
    /// The request passed this gate before, so the upstream leads back to it: 502.
    Loop,
    /// The client's own body failed: 413, 408 or 400.
    RequestBody(RequestBodyError),
    /// The `Host` cannot be an `:authority` (RFC 9113 §8.3.1): 400.
    Host,
    /// The target cannot be a `:path` of the HTTP/2 library: 400.
    Target,
    /// `Connection` lists more members than any message has fields: 400.
    Connection,
    /// A TRACE whose response would reveal credentials, or that ends at this gate: 405.
    Trace,
}

/// The labels of `portcullis_upstream_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No TCP connection.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No response in time.
    Timeout,
    /// The response violates HTTP.
    BadAnswer,
    /// The connection ended too early.
    Closed,
    /// The HTTP/2 stream was reset.
    Reset,
    /// The upstream leads back to this gate.
    Loop,
}

impl ErrorKind {
    const ALL: [Self; 7] =
        [Self::Connect, Self::Tls, Self::Timeout, Self::BadAnswer, Self::Closed, Self::Reset, Self::Loop];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::BadAnswer => "bad_answer",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Loop => "loop",
        }
    }
}

impl ForwardError {
    /// No connection within `connect_timeout`.
    pub(crate) fn not_connected_within(limit: std::time::Duration) -> Self {
        Self::Connect(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))
    }

    /// No descriptor is left for another connection to an upstream within the limit on open files.
    pub(crate) fn no_descriptor() -> Self {
        Self::Connect(io::Error::other(
            "the limit on open files leaves no descriptor for another connection to an upstream",
        ))
    }

    /// The label in `portcullis_upstream_errors_total`; `None` if the client is at fault.
    #[must_use]
    pub const fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Connect(_) => Some(ErrorKind::Connect),
            Self::Tls(_) => Some(ErrorKind::Tls),
            Self::Timeout => Some(ErrorKind::Timeout),
            Self::BadAnswer(_) => Some(ErrorKind::BadAnswer),
            Self::Closed(_) => Some(ErrorKind::Closed),
            Self::Reset(_) => Some(ErrorKind::Reset),
            Self::Loop => Some(ErrorKind::Loop),
            Self::RequestBody(_) | Self::Host | Self::Target | Self::Connection | Self::Trace => None,
        }
    }

    /// The status for the client.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(_)
            | Self::Tls(_)
            | Self::BadAnswer(_)
            | Self::Closed(_)
            | Self::Reset(_)
            | Self::Loop => StatusCode::BAD_GATEWAY,
            Self::RequestBody(RequestBodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestBody(RequestBodyError::Stalled) => StatusCode::REQUEST_TIMEOUT,
            Self::RequestBody(RequestBodyError::Length | RequestBodyError::Client(_))
            | Self::Host
            | Self::Target
            | Self::Connection => StatusCode::BAD_REQUEST,
            Self::Trace => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(cause) => write!(f, "cannot connect: {cause}"),
            Self::Tls(cause) => write!(f, "TLS handshake failed: {cause}"),
            Self::Timeout => f.write_str("no response in time"),
            Self::BadAnswer(cause) => write!(f, "{cause}"),
            Self::Closed(cause) => write!(f, "connection closed before a response: {cause}"),
            Self::Reset(reason) => write!(f, "stream reset: {reason}"),
            Self::Loop => f.write_str("the upstream's address leads back to this gate"),
            Self::RequestBody(cause) => write!(f, "{cause}"),
            Self::Host => f.write_str("the Host header is not a valid authority"),
            Self::Target => f.write_str("the request target cannot be sent over HTTP/2"),
            Self::Connection => f.write_str("the Connection header has too many members"),
            Self::Trace => f.write_str("TRACE is not forwarded"),
        }
    }
}

impl std::error::Error for ForwardError {}

impl From<BadAnswer> for ForwardError {
    fn from(cause: BadAnswer) -> Self {
        Self::BadAnswer(cause)
    }
}

impl From<RequestBodyError> for ForwardError {
    fn from(cause: RequestBodyError) -> Self {
        Self::RequestBody(cause)
    }
}

/// The counters of one upstream, looked up once.
#[derive(Debug)]
pub(crate) struct Errors([IntCounter; ErrorKind::ALL.len()]);

impl Errors {
    pub(crate) fn new(metrics: &Metrics, upstream: &str) -> Self {
        Self(ErrorKind::ALL.map(|kind| metrics.upstream_errors.with_label_values(&[upstream, kind.as_str()])))
    }

    pub(crate) fn count(&self, error: &ForwardError) {
        self.add(error.kind());
    }

    pub(crate) fn count_body(&self, error: &BodyError) {
        self.add(error.kind());
    }

    fn add(&self, kind: Option<ErrorKind>) {
        let place = kind.and_then(|kind| ErrorKind::ALL.iter().position(|other| *other == kind));
        if let Some(counter) = place.and_then(|place| self.0.get(place)) {
            counter.inc();
        }
    }
}
