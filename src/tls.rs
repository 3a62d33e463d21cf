//! TLS on both sides: the certificates served, the certificates trusted.
//!
//! Knows files and rustls; knows nothing of HTTP.

use std::path::PathBuf;

/// TLS of a listener, as configured (CONTRACT §2 `[server.tls]`, `[admin.tls]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// PEM file: the certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file: the private key (PKCS#8, PKCS#1 or SEC1).
    pub private_key: PathBuf,
    /// The lowest version accepted.
    pub min_version: Version,
    /// PEM file with the roots that client certificates are verified against; `None`: none is asked for.
    pub client_ca: Option<PathBuf>,
    /// A handshake without a client certificate fails.
    pub require_client_certificate: bool,
}

/// A TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}
