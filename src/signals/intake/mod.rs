//! The endpoints that signals are sent to: a request's head and body in, a whole answer out.
//!
//! Routes by kind and name, and limits senders before any signature is verified. Knows no sockets: the public listener,
//! or a listener of its own, reads the body and sends the answer.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, Method, Response};

use super::SignalRequest;
use super::ssf::Receiver;
use crate::authority::throttle::{GuessLimit, network};
use crate::time::Monotonic;
use crate::tls;

mod answer;
pub mod push;

use answer::{Fault, fault};

/// The endpoints, as configured (`[signals]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A listener of their own; `None`: the public one.
    pub listen: Option<SocketAddr>,
    /// TLS of that listener.
    pub tls: Option<tls::ServerSettings>,
    /// What their paths begin with, such as `/signals`.
    pub path: String,
    /// How senders reach the gate, without a slash at its end.
    pub public_url: Option<String>,
    /// Requests a second from one address.
    pub requests_per_sender: NonZeroU32,
}

impl Settings {
    /// The URL of an endpoint as its sender knows it. Made from `public_url` only, never from what a request says.
    #[must_use]
    pub fn url(&self, kind: EndpointKind, name: &str) -> Option<String> {
        let public = self.public_url.as_ref()?;
        Some(format!("{public}{}/{}/{name}", self.path, kind.segment()))
    }
}

/// What an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointKind {
    /// Security event tokens by push (RFC 8935).
    Ssf,
}

impl EndpointKind {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Ssf];

    /// The segment of the path that stands for it.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Ssf => "ssf",
        }
    }

    /// The longest body that is read, in bytes.
    #[must_use]
    pub const fn max_body(self) -> usize {
        match self {
            Self::Ssf => 64 << 10,
        }
    }

    /// Its methods, as `Allow` lists them.
    const fn methods(self) -> &'static str {
        match self {
            Self::Ssf => "POST",
        }
    }
}

/// What a path below that of the intake names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `None`: there is no such kind.
    pub kind: Option<EndpointKind>,
    /// The sender, as the configuration calls it.
    name: String,
    /// What follows.
    rest: String,
}

/// The configured senders, by kind.
#[derive(Debug)]
pub struct Senders {
    /// `[[event_transmitters]]`.
    pub receiver: Arc<Receiver>,
}

/// The endpoints of one configuration.
#[derive(Debug)]
pub struct Intake {
    settings: Settings,
    senders: Senders,
    limit: Arc<GuessLimit<IpAddr>>,
}

impl Intake {
    /// Endpoints for these senders.
    #[must_use]
    pub fn new(settings: Settings, senders: Senders) -> Self {
        let limit = Arc::new(GuessLimit::per_second(settings.requests_per_sender));
        Self { settings, senders, limit }
    }

    /// The same, and what `running` knows of senders stays known while the limit is the same.
    #[must_use]
    pub fn after(self, running: &Self) -> Self {
        let stands = running.settings.requests_per_sender == self.settings.requests_per_sender;
        let limit = if stands { Arc::clone(&running.limit) } else { self.limit };
        Self { limit, ..self }
    }

    /// What they were made from.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A pattern for the paths of each kind, for logs and metrics; the last stands for what is not there.
    #[must_use]
    pub fn patterns(&self) -> Vec<(Option<EndpointKind>, String)> {
        let path = &self.settings.path;
        let pattern = |kind: EndpointKind| (Some(kind), format!("{path}/{}/{{name}}", kind.segment()));
        EndpointKind::ALL.into_iter().map(pattern).chain([(None, format!("{path}/*"))]).collect()
    }

    /// What a path names, if it is one of the intake's.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        let below = path.strip_prefix(&*self.settings.path)?;
        if !below.is_empty() && !below.starts_with('/') {
            return None;
        }
        let mut segments = below.splitn(4, '/').skip(1);
        let (kind, name) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
        let rest = segments.next().map(|rest| format!("/{rest}")).unwrap_or_default();
        let kind = EndpointKind::ALL.into_iter().find(|known| known.segment() == kind);
        Some(Endpoint { kind, name: name.to_owned(), rest })
    }

    /// Decides whether the body of a request is read, and how many bytes of it at most.
    ///
    /// # Errors
    /// The answer to a request whose body does not matter: the sender sends too many, or nothing is there.
    pub fn admit(
        &self,
        endpoint: &Endpoint,
        method: &Method,
        address: IpAddr,
    ) -> Result<usize, Box<Response<Bytes>>> {
        if let Err(wait) = self.limit.fail(network(address), Monotonic::now()) {
            let mut answer = fault(endpoint.kind, Fault::TooMany);
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let seconds = HeaderValue::try_from(seconds.to_string());
            answer.headers_mut().insert(RETRY_AFTER, seconds.unwrap_or(HeaderValue::from_static("1")));
            return Err(Box::new(answer));
        }
        let Some(kind) = endpoint.kind else { return Err(Box::new(fault(None, Fault::NotFound))) };
        if !self.has(kind, endpoint) {
            return Err(Box::new(fault(Some(kind), Fault::NotFound)));
        }
        if !kind.methods().split(", ").any(|known| method.as_str() == known) {
            let mut answer = fault(Some(kind), Fault::Method);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(kind.methods()));
            return Err(Box::new(answer));
        }
        Ok(kind.max_body())
    }

    /// Whether an endpoint is there.
    fn has(&self, kind: EndpointKind, endpoint: &Endpoint) -> bool {
        match kind {
            EndpointKind::Ssf => {
                endpoint.rest.is_empty() && self.senders.receiver.transmitter(&endpoint.name).is_some()
            }
        }
    }

    /// Answers a request that was [admitted](Self::admit).
    pub async fn answer(&self, endpoint: &Endpoint, request: &SignalRequest<'_>) -> Response<Bytes> {
        match endpoint.kind {
            Some(EndpointKind::Ssf) => match self.senders.receiver.transmitter(&endpoint.name) {
                Some(transmitter) => push::from_sender(&self.senders.receiver, &transmitter, request).await,
                None => fault(endpoint.kind, Fault::NotFound),
            },
            None => fault(None, Fault::NotFound),
        }
    }

    /// Answers a request whose body did not come.
    #[must_use]
    pub fn incomplete(&self, endpoint: &Endpoint) -> Response<Bytes> {
        fault(endpoint.kind, Fault::Incomplete)
    }
}

impl Endpoint {
    /// The request to it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.rest
    }
}
