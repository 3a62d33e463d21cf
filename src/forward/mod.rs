//! Sends a permitted request to its upstream and streams the answer back.
//!
//! Needs a `Permit`, which only `enforce` can make; knows nothing of tokens beyond the header values it carries.

use std::path::PathBuf;
use std::time::Duration;

/// An upstream, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The name routes refer to, and the metric label.
    pub name: String,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Host name or address literal (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Limit on TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// Limit from the request sent to the response's headers.
    pub response_timeout: Duration,
    /// How long an unused connection stays in the pool.
    pub idle_timeout: Duration,
    /// PEM file with the roots for `https`; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// PEM files of certificate chain and key presented to the upstream.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
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
