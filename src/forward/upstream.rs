//! An upstream: its settings, endpoints and trust.
//!
//! Shared by all workers; this module knows nothing about requests or pools.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::endpoint::UpstreamEndpoint;
use super::request_count::{AtCapacity, RequestCount, RequestSlot};
use crate::tls;

/// Settings of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The name routes refer to, and the metric label.
    pub name: String,
    /// The protocol.
    pub scheme: Scheme,
    /// Its addresses; if there are several, each request goes to the one with the fewest in flight.
    pub addresses: Vec<Address>,
    /// Overrides `Host` and `:authority`; `None`: the client's own.
    pub host: Option<HeaderValue>,
    /// The server name for TLS, which its certificate must match; `None`: the host of its URL.
    pub sni: Option<String>,
    /// Limit on requests in flight, for all addresses together.
    pub max_requests: Option<NonZeroUsize>,
    /// Limit on TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// Limit from the end of the request to the response's headers.
    pub response_timeout: Duration,
    /// Limit on the upstream's silence within a response's body.
    pub body_timeout: Option<Duration>,
    /// How long an unused connection stays in the pool.
    pub idle_timeout: Duration,
    /// PEM file with the trusted roots for `https`; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of certificate chain and key presented to the upstream.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// The address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Host name or address literal (without brackets), and TCP port.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The protocol spoken with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in clear text.
    Http,
    /// TLS; HTTP/2 or HTTP/1.1 by ALPN.
    Https,
    /// HTTP/2 in clear text with prior knowledge (RFC 9113 §3.3).
    H2c,
}

/// A configured upstream with its trust loaded.
pub struct Upstream {
    settings: UpstreamSettings,
    endpoints: Vec<UpstreamEndpoint>,
    /// A digest of the certificate files when they were read.
    fingerprint: Vec<u8>,
    /// Shared with the upstream of the same name in earlier and later configurations.
    requests: Arc<RequestCount>,
}

/// The TLS configuration of one endpoint.
pub(crate) struct Tls {
    pub(crate) name: ServerName<'static>,
    /// Offers HTTP/2 and HTTP/1.1.
    pub(crate) any: TlsConnector,
    /// Offers HTTP/1.1 only, as an upgrade requires.
    pub(crate) http1: TlsConnector,
}

/// Why an upstream could not be set up.
#[derive(Debug)]
pub enum LoadError {
    /// No certificate can contain the host.
    Host(String),
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// The CA or client certificate is unusable.
    Tls(tls::TlsError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "`{host}` is neither a DNS name nor an address"),
            Self::File(path, cause) => write!(f, "{}: {cause}", path.display()),
            Self::Tls(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<tls::TlsError> for LoadError {
    fn from(cause: tls::TlsError) -> Self {
        Self::Tls(cause)
    }
}

impl Upstream {
    /// Reads the CA and the client certificate, for `https`.
    ///
    /// # Errors
    /// When a file cannot be used, or no certificate can contain the host.
    pub fn load(settings: UpstreamSettings) -> Result<Arc<Self>, LoadError> {
        Self::load_after(settings, &[])
    }

    /// As [`Self::load`]; `running` are the upstreams of the configuration in force. Requests in flight at
    /// the one with the same name remain counted, whatever else changes.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_after(settings: UpstreamSettings, running: &[Arc<Self>]) -> Result<Arc<Self>, LoadError> {
        let (connectors, fingerprint) = match settings.scheme {
            Scheme::Https => (Some(Connectors::load(&settings)?), fingerprint(&settings)?),
            Scheme::Http | Scheme::H2c => (None, Vec::new()),
        };
        let endpoint = |address: &Address| {
            let tls = match (&connectors, address) {
                (Some(connectors), Address::Tcp { host, .. }) => {
                    Some(connectors.towards(settings.sni.as_ref().unwrap_or(host))?)
                }
                (None, _) | (_, Address::Unix(_)) => None,
            };
            Ok::<_, LoadError>(UpstreamEndpoint::new(address.clone(), tls))
        };
        let endpoints = settings.addresses.iter().map(endpoint).collect::<Result<_, _>>()?;
        let same = running.iter().find(|upstream| upstream.settings.name == settings.name);
        let requests = same.map(|upstream| Arc::clone(&upstream.requests)).unwrap_or_default();
        Ok(Arc::new(Self { settings, endpoints, fingerprint, requests }))
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Its addresses, in the order of the configuration.
    pub(crate) fn endpoints(&self) -> &[UpstreamEndpoint] {
        &self.endpoints
    }

    /// Whether it has reached its limit of requests in flight.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.requests.is_full(self.settings.max_requests)
    }

    /// Counts a request that is about to be sent to it.
    ///
    /// # Errors
    /// When it has reached its limit of requests in flight.
    pub fn begin_request(&self) -> Result<RequestSlot, AtCapacity> {
        self.requests.begin(self.settings.max_requests)
    }

    /// Whether connections to `other` can be used for this one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        // The limit is checked before a request takes a connection, so it may differ.
        let max_requests = other.settings.max_requests;
        let settings = UpstreamSettings { max_requests, ..self.settings.clone() };
        settings == other.settings && self.fingerprint == other.fingerprint
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The TLS configurations of an upstream.
struct Connectors {
    any: TlsConnector,
    http1: TlsConnector,
}

impl Connectors {
    fn load(settings: &UpstreamSettings) -> Result<Self, LoadError> {
        let config = |alpn: &[&[u8]]| {
            tls::client_config(settings.ca.as_deref(), settings.client_certificate.as_ref(), alpn)
        };
        Ok(Self { any: config(&[b"h2", b"http/1.1"])?.into(), http1: config(&[b"http/1.1"])?.into() })
    }

    fn towards(&self, name: &str) -> Result<Tls, LoadError> {
        let parsed = ServerName::try_from(name.to_owned());
        let name = parsed.map_err(|_invalid| LoadError::Host(name.to_owned()))?;
        Ok(Tls { name, any: self.any.clone(), http1: self.http1.clone() })
    }
}

/// A digest of the certificate files, so that a renewed certificate under the same name is noticed.
fn fingerprint(settings: &UpstreamSettings) -> Result<Vec<u8>, LoadError> {
    let certificate = settings.client_certificate.iter().flat_map(|(chain, key)| [chain, key]);
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for path in settings.ca.iter().chain(certificate) {
        let content = std::fs::read(path).map_err(|cause| LoadError::File(path.clone(), cause))?;
        digest.update(&(content.len() as u64).to_be_bytes());
        digest.update(&content);
    }
    Ok(digest.finish().as_ref().to_vec())
}
