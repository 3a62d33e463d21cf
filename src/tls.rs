//! TLS on both sides: the certificates served, the certificates trusted.
//!
//! Knows files and rustls; knows nothing of HTTP. Every error names the file and what is wrong with it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, InconsistentKeys, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion, version,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::time::Timestamp;

mod by_name;
mod clients;
mod stream;

use by_name::ByName;
use clients::Clients;
pub use clients::{ClientCertificate, NoClientCertificate};
pub(crate) use stream::ServerStream;

/// TLS of a listener, as configured (`[server.tls]`, `[admin.tls]`).
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
    /// Clients get tickets, with which they resume their sessions.
    pub session_tickets: bool,
    /// Other certificates, for clients that ask for their names.
    pub certificates: Vec<NamedCertificate>,
}

/// A certificate for clients that ask for one of its names (`[[server.tls.certificates]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCertificate {
    /// Host names in lower case; `*.` at the beginning stands for one label.
    pub names: Vec<String>,
    /// PEM file: the certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub private_key: PathBuf,
}

impl ServerSettings {
    /// The files with certificates: the default one, and those with names.
    pub fn certificate_files(&self) -> impl Iterator<Item = &Path> {
        let named = self.certificates.iter().map(|named| &named.certificate);
        std::iter::once(&self.certificate).chain(named).map(PathBuf::as_path)
    }

    /// Every file that the settings name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let keys = self.certificates.iter().map(|named| &named.private_key);
        let keys = std::iter::once(&self.private_key).chain(keys).chain(&self.client_ca);
        self.certificate_files().chain(keys.map(PathBuf::as_path))
    }
}

/// A TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// The cipher suites of listeners, the preferred one first.
const SUITES: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

impl Version {
    fn and_above(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => &FROM_TLS12,
            Self::Tls13 => &FROM_TLS13,
        }
    }
}

/// Why a certificate or a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// The file at fault; `None` when it is the system's trust store.
    pub path: Option<PathBuf>,
    /// What is wrong with it, in plain words.
    pub problem: String,
}

impl TlsError {
    fn at(path: &Path, problem: impl fmt::Display) -> Self {
        Self { path: Some(path.to_owned()), problem: problem.to_string() }
    }

    fn elsewhere(problem: impl fmt::Display) -> Self {
        Self { path: None, problem: problem.to_string() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for TlsError {}

/// TLS of a listener as it is in force: what handshakes use, and what judges client certificates after them.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    clients: Clients,
    /// What session tickets are sealed with; `None`: there are none.
    tickets: Option<Arc<dyn ProducesTickets>>,
}

/// Reads the certificates of a listener: ALPN `h2` and `http/1.1`, sessions resumed by tickets, never early data (RFC
/// 8446 §8: it could be replayed).
///
/// AES-128-GCM is chosen whatever order a client lists its cipher suites in: it is the one that every client of TLS 1.3
/// has (RFC 8446 §9.1), and costs least on processors with AES instructions.
///
/// Tickets of the `running` listener stay good, so that resumption survives a reload, unless the rules for client
/// certificates change: a resumed session brings the certificate of its first handshake along.
///
/// # Errors
/// When a file cannot be read or used, or when key and certificate do not belong together.
pub fn server_tls(settings: &ServerSettings, running: Option<&ServerTls>) -> Result<ServerTls, TlsError> {
    let provider =
        Arc::new(CryptoProvider { cipher_suites: SUITES.to_vec(), ..provider::default_provider() });
    let identity = ByName::load(settings, &provider)?;
    let clients = Clients::new(settings, &provider)?;
    let kept = running.filter(|running| running.clients.rules() == clients.rules());
    let tickets =
        match kept.and_then(|running| running.tickets.as_ref()) {
            _ if !settings.session_tickets => None,
            Some(running) => Some(Arc::clone(running)),
            None => Some(provider::Ticketer::new().map_err(|e| {
                TlsError::elsewhere(format_args!("cannot create keys for session tickets: {e}"))
            })?),
        };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(settings.min_version.and_above())
        .map_err(TlsError::elsewhere)?
        .with_client_cert_verifier(clients.verifier())
        .with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    match &tickets {
        Some(tickets) => {
            config.ticketer = Arc::clone(tickets);
            // A client that wants a second one makes a second connection.
            config.send_tls13_tickets = 1;
        }
        None => config.send_tls13_tickets = 0,
    }
    // Tickets are enough, and a cache in memory would be a lock that all workers share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(ServerTls { config: Arc::new(config), clients, tickets })
}

impl ServerTls {
    /// The thumbprint of the client certificate that a request may use now; `None` when it has none.
    ///
    /// The handshake verified the certificate once, and a resumed session does not verify it again. So the certificate is
    /// judged for each request: by the roots in force, and by the time.
    ///
    /// # Errors
    /// [`NoClientCertificate`] when the listener requires one, and there is none that is valid.
    pub fn judge_client<'c>(
        &self,
        certificate: Option<&'c ClientCertificate>,
        now: Timestamp,
    ) -> Result<Option<&'c [u8; 32]>, NoClientCertificate> {
        self.clients.judge(certificate, now)
    }

    /// The same for HTTP/1.1 only, whatever the protocols a client offers.
    #[must_use]
    pub fn http1_only(mut self) -> Self {
        let mut config = Arc::unwrap_or_clone(self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.config = Arc::new(config);
        self
    }
}

/// The configuration towards a server: `ca` or else the system's roots, `client_certificate` as chain and key.
///
/// # Errors
/// When a file cannot be read or used, or when key and certificate do not belong together.
pub fn client_config(
    ca: Option<&Path>,
    client_certificate: Option<&(PathBuf, PathBuf)>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(provider::default_provider());
    let roots = match ca {
        Some(path) => roots(&read(path)?, path)?,
        None => system_roots()?,
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(TlsError::elsewhere)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(Version::Tls12.and_above())
        .map_err(TlsError::elsewhere)?
        .with_webpki_verifier(verifier);
    let mut config = match client_certificate {
        Some((chain, key)) => {
            let identity = identity(chain, key, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The configuration of a client that speaks plain HTTP only: it trusts no certificate, and reads no file.
///
/// # Errors
/// When the TLS library has no protocol version that it could use.
pub fn without_roots() -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(Version::Tls12.and_above())
        .map_err(TlsError::elsewhere)?;
    Ok(Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

/// When the first certificate of a chain's file to expire does so.
///
/// # Errors
/// When the file cannot be read, or holds something else than certificates.
pub fn certificate_expiry(path: &Path) -> Result<Timestamp, TlsError> {
    let mut first = None;
    for certificate in certificates(&read(path)?, path)? {
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|e| {
            TlsError::at(path, format_args!("contains a certificate that cannot be parsed: {e}"))
        })?;
        let end = Timestamp::from_secs(parsed.validity().not_after.timestamp());
        first = Some(first.map_or(end, |earlier: Timestamp| earlier.min(end)));
    }
    first.ok_or_else(|| TlsError::at(path, NO_CERTIFICATE))
}

/// Whether the first certificate of a chain's file is for a host name, which may begin with `*.`.
///
/// # Errors
/// When it is not, with the names that it is for; when the file cannot be read or parsed.
pub fn check_name(path: &Path, name: &str) -> Result<(), TlsError> {
    let chain = certificates(&read(path)?, path)?;
    let leaf = chain.first().ok_or_else(|| TlsError::at(path, NO_CERTIFICATE))?;
    let (_, leaf) = X509Certificate::from_der(leaf)
        .map_err(|e| TlsError::at(path, format_args!("contains a certificate that cannot be parsed: {e}")))?;
    by_name::check_name(&leaf, name).map_err(|names| {
        TlsError::at(path, format_args!("the certificate is not for {name:?}, only for: {names}"))
    })
}

const NO_CERTIFICATE: &str = "contains no certificate (expected PEM with BEGIN CERTIFICATE)";

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|e| TlsError::at(path, format_args!("cannot be read: {e}")))
}

/// The certificates of a PEM file's text; at least one.
fn certificates(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|e| TlsError::at(path, format_args!("not valid PEM: {e}")))?;
    if found.is_empty() { Err(TlsError::at(path, NO_CERTIFICATE)) } else { Ok(found) }
}

/// Chain and key, read, parsed and found to belong together.
fn identity(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let certificates = certificates(&read(chain)?, chain)?;
    let der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| match e {
        pem::Error::NoItemsFound => {
            TlsError::at(key, "contains no private key (expected unencrypted PEM: PKCS#8, PKCS#1 or SEC1)")
        }
        other => TlsError::at(key, format_args!("not valid PEM: {other}")),
    })?;
    let signing = provider
        .key_provider
        .load_private_key(der)
        .map_err(|e| TlsError::at(key, format_args!("the private key is not usable: {e}")))?;
    let certified = CertifiedKey::new(certificates, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::at(
            chain,
            format_args!("the certificate does not match the private key in {}", key.display()),
        )),
        Err(e) => Err(TlsError::at(chain, format_args!("the first certificate is not usable: {e}"))),
    }
}

fn roots(text: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(text, path)? {
        store.add(certificate).map_err(|e| {
            TlsError::at(path, format_args!("contains a certificate that cannot be a root: {e}"))
        })?;
    }
    Ok(store)
}

/// The system's roots. Single ones that cannot be parsed are left out: distributions ship such.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(found.certs);
    match (usable, found.errors.first()) {
        (0, Some(e)) => {
            Err(TlsError::elsewhere(format_args!("cannot read the system's root certificates: {e}")))
        }
        (0, None) => Err(TlsError::elsewhere("the system has no root certificates: set `ca`")),
        _ => Ok(store),
    }
}

#[cfg(test)]
mod tests;
