//! The endpoints for signals: takes the head and body of a request and returns a complete response.
//!
//! Routes by kind and name, and limits senders before any signature is verified. Knows nothing about sockets:
//! the public listener, or a separate one, reads the body and sends the response.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, Method, Response};

use super::logout::LogoutSender;
use super::revocation::RevocationSender;
use super::scim;
use super::ssf::Receiver;
use super::{SignalLog, SignalRequest};
use crate::authority::throttle::{GuessLimit, network};
use crate::state::record::EventSource;
use crate::time::Monotonic;
use crate::tls;

mod answer;
mod logout;
pub mod push;
mod revocation;

use answer::{Fault, fault};

/// The settings of the endpoints (`[signals]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The address of a separate listener; `None` for the public one.
    pub listen: Option<SocketAddr>,
    /// TLS of that listener.
    pub tls: Option<tls::ServerSettings>,
    /// The prefix of their paths, such as `/signals`.
    pub path: String,
    /// The base URL at which senders reach the gate, without a trailing slash.
    pub public_url: Option<String>,
    /// How many requests per second one address may send.
    pub requests_per_sender: NonZeroU32,
}

impl Settings {
    /// The URL of an endpoint as its sender knows it. Derived only from `public_url`, never from a request.
    #[must_use]
    pub fn url(&self, kind: EndpointKind, name: &str) -> Option<String> {
        let public = self.public_url.as_ref()?;
        Some(format!("{public}{}/{}/{name}", self.path, kind.segment()))
    }
}

/// What an endpoint accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointKind {
    /// Security event tokens by push (RFC 8935).
    Ssf,
    /// Logout tokens (OpenID Connect Back-Channel Logout 1.0).
    Logout,
    /// Global Token Revocation.
    GlobalTokenRevocation,
    /// Users and groups (SCIM 2.0).
    Scim,
}

impl EndpointKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Ssf, Self::Logout, Self::GlobalTokenRevocation, Self::Scim];

    /// The path segment of the kind.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Ssf => "ssf",
            Self::Logout => "logout",
            Self::GlobalTokenRevocation => "global-token-revocation",
            Self::Scim => "scim",
        }
    }

    /// The source of its events.
    #[must_use]
    pub const fn source(self) -> EventSource {
        match self {
            Self::Ssf => EventSource::Ssf,
            Self::Logout => EventSource::Logout,
            Self::GlobalTokenRevocation => EventSource::GlobalRevocation,
            Self::Scim => EventSource::Scim,
        }
    }

    /// The largest accepted body, in bytes.
    #[must_use]
    pub const fn max_body(self) -> usize {
        match self {
            Self::Ssf | Self::Logout | Self::GlobalTokenRevocation => 64 << 10,
            Self::Scim => scim::MAX_BODY,
        }
    }

    /// The supported methods, as listed in `Allow`.
    const fn methods(self) -> &'static str {
        match self {
            Self::Ssf | Self::Logout | Self::GlobalTokenRevocation => "POST",
            // The provider decides which of its paths supports which.
            Self::Scim => "GET, POST, PUT, PATCH, DELETE",
        }
    }
}

/// The endpoint that a path below that of the intake names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The kind; `None` if the path names no kind.
    pub kind: Option<EndpointKind>,
    /// The name of the sender in the configuration.
    name: String,
    /// The rest of the path.
    rest: String,
}

/// The configured senders, by kind.
#[derive(Debug)]
pub struct Senders {
    /// `[[event_transmitters]]`.
    pub receiver: Arc<Receiver>,
    /// `[[logout]]`.
    pub logout: Vec<LogoutSender>,
    /// `[[global_token_revocation]]`.
    pub revocation: Vec<RevocationSender>,
    /// `[[scim]]`.
    pub scim: Vec<Arc<scim::Provider>>,
    /// The log that their signals are published to.
    pub log: Arc<SignalLog>,
}

/// The endpoints of one configuration.
#[derive(Debug)]
pub struct Intake {
    settings: Settings,
    senders: Senders,
    limit: Arc<GuessLimit<IpAddr>>,
}

impl Intake {
    /// Creates the endpoints for these senders.
    #[must_use]
    pub fn new(settings: Settings, senders: Senders) -> Self {
        let limit = Arc::new(GuessLimit::per_second(settings.requests_per_sender));
        Self { settings, senders, limit }
    }

    /// Takes over the rate limiter of `running` unless the limit has changed, so that senders stay limited over a reload.
    #[must_use]
    pub fn after(self, running: &Self) -> Self {
        let stands = running.settings.requests_per_sender == self.settings.requests_per_sender;
        let limit = if stands { Arc::clone(&running.limit) } else { self.limit };
        Self { limit, ..self }
    }

    /// The settings that they were created from.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A path pattern for each kind, for logs and metrics; the last one is for paths that match no endpoint.
    #[must_use]
    pub fn patterns(&self) -> Vec<(Option<EndpointKind>, String)> {
        let path = &self.settings.path;
        let pattern = |kind: EndpointKind| (Some(kind), format!("{path}/{}/{{name}}", kind.segment()));
        EndpointKind::ALL.into_iter().map(pattern).chain([(None, format!("{path}/*"))]).collect()
    }

    /// Returns the endpoint that a path names, if it is below the intake's path.
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

    /// Decides whether to read the body of a request, and returns the largest size to read.
    ///
    /// # Errors
    /// The response to a request whose body need not be read: the sender exceeds its rate limit, or the path or
    /// method does not exist.
    pub fn admit(
        &self,
        endpoint: &Endpoint,
        method: &Method,
        address: IpAddr,
    ) -> Result<usize, Box<Response<Bytes>>> {
        let refused = |what: Fault| {
            if let Some(kind) = endpoint.kind {
                self.refused(kind, &endpoint.name, what.description());
            }
            fault(endpoint.kind, what)
        };
        if let Err(wait) = self.limit.fail(network(address), Monotonic::now()) {
            if let Some(kind) = endpoint.kind {
                self.senders.log.ignored(kind.source());
            }
            let mut answer = fault(endpoint.kind, Fault::TooMany);
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let seconds = HeaderValue::try_from(seconds.to_string());
            answer.headers_mut().insert(RETRY_AFTER, seconds.unwrap_or(HeaderValue::from_static("1")));
            return Err(Box::new(answer));
        }
        let Some(kind) = endpoint.kind else { return Err(Box::new(refused(Fault::NotFound))) };
        // Only SCIM providers have paths below their own.
        let is_below = kind != EndpointKind::Scim && !endpoint.rest.is_empty();
        if !self.has_sender(kind, &endpoint.name) || is_below {
            return Err(Box::new(refused(Fault::NotFound)));
        }
        if !kind.methods().split(", ").any(|known| method.as_str() == known) {
            let mut answer = refused(Fault::Method);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(kind.methods()));
            return Err(Box::new(answer));
        }
        Ok(kind.max_body())
    }

    /// Whether a sender is configured.
    fn has_sender(&self, kind: EndpointKind, name: &str) -> bool {
        match kind {
            EndpointKind::Ssf => self.senders.receiver.transmitter(name).is_some(),
            EndpointKind::Logout => self.senders.logout(name).is_some(),
            EndpointKind::GlobalTokenRevocation => self.senders.revocation(name).is_some(),
            EndpointKind::Scim => self.senders.scim(name).is_some(),
        }
    }

    /// Processes a request that was [admitted](Self::admit) and returns the response.
    pub async fn answer(&self, endpoint: &Endpoint, request: &SignalRequest<'_>) -> Response<Bytes> {
        let (senders, name) = (&self.senders, &endpoint.name);
        let answer = match endpoint.kind {
            Some(EndpointKind::Ssf) => match senders.receiver.transmitter(name) {
                Some(transmitter) => Some(push::from_sender(self, &transmitter, request).await),
                None => None,
            },
            Some(EndpointKind::Logout) => match senders.logout(name) {
                Some(sender) => Some(logout::logout(self, sender, request).await),
                None => None,
            },
            Some(EndpointKind::GlobalTokenRevocation) => match senders.revocation(name) {
                Some(sender) => Some(revocation::revoke(self, sender, request).await),
                None => None,
            },
            Some(EndpointKind::Scim) => match senders.scim(name) {
                Some(provider) => Some(provider.answer(request).await),
                None => None,
            },
            None => None,
        };
        answer.unwrap_or_else(|| fault(endpoint.kind, Fault::NotFound))
    }

    /// Logs and counts a rejected signal. `why` contains nothing from the request.
    fn refused(&self, kind: EndpointKind, sender: &str, why: &'static str) {
        let sender = self.has_sender(kind, sender).then_some(sender);
        self.senders.log.refused(kind.source(), sender, why);
    }

    /// The response to a request whose body did not arrive.
    #[must_use]
    pub fn incomplete(&self, endpoint: &Endpoint) -> Response<Bytes> {
        if let Some(kind) = endpoint.kind {
            self.refused(kind, &endpoint.name, Fault::Incomplete.description());
        }
        fault(endpoint.kind, Fault::Incomplete)
    }
}

impl Senders {
    fn logout(&self, name: &str) -> Option<&LogoutSender> {
        self.logout.iter().find(|sender| sender.settings().name == name)
    }

    fn revocation(&self, name: &str) -> Option<&RevocationSender> {
        self.revocation.iter().find(|sender| sender.settings().name == name)
    }

    fn scim(&self, name: &str) -> Option<&Arc<scim::Provider>> {
        self.scim.iter().find(|provider| provider.settings().name == name)
    }
}

impl Endpoint {
    /// The rest of the path, after the sender's name.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_url_where_it_is_configured_how_senders_reach_the_gate() {
        for (kind, expected) in [
            (EndpointKind::Ssf, "https://gate.example/signals/ssf/okta"),
            (EndpointKind::Logout, "https://gate.example/signals/logout/okta"),
            (
                EndpointKind::GlobalTokenRevocation,
                "https://gate.example/signals/global-token-revocation/okta",
            ),
            (EndpointKind::Scim, "https://gate.example/signals/scim/okta"),
        ] {
            let of = |public_url: Option<&str>| Settings {
                listen: None,
                tls: None,
                path: "/signals".to_owned(),
                public_url: public_url.map(str::to_owned),
                requests_per_sender: NonZeroU32::MIN,
            };
            let url = of(Some("https://gate.example")).url(kind, "okta");
            assert_eq!(url.as_deref(), Some(expected));
            assert_eq!(of(None).url(kind, "okta"), None);
        }
    }
}
