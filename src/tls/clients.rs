//! Client certificates: which are accepted by a handshake, and whether one is still valid for the next request.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{ServerSettings, TlsError, read, roots};
use crate::time::Timestamp;

/// The rules for client certificates of one listener.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// SHA-256 of the file with the roots, and whether a certificate is required; `None`: no certificate is asked for.
    rules: Option<([u8; 32], bool)>,
}

/// The certificate chain that the client of a connection presented.
#[derive(Debug)]
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    thumbprint: [u8; 32],
    /// The moments at which the validity of a certificate of the chain begins or ends.
    boundaries: Vec<Timestamp>,
    verdict: Cell<Option<ClientVerdict>>,
}

/// Whether a chain is valid under these roots, at any time from `from` until before `until`.
#[derive(Debug, Clone, Copy)]
struct ClientVerdict {
    roots: [u8; 32],
    from: Timestamp,
    until: Timestamp,
    is_valid: bool,
}

/// The listener requires a client certificate, and the connection has none that is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoClientCertificate;

impl fmt::Display for NoClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection has no valid client certificate")
    }
}

impl std::error::Error for NoClientCertificate {}

impl Clients {
    pub(super) fn new(settings: &ServerSettings, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let Some(path) = &settings.client_ca else {
            return Ok(Self { verifier: WebPkiClientVerifier::no_client_auth(), rules: None });
        };
        let text = read(path)?;
        let store = Arc::new(roots(&text, path)?);
        let mut builder = WebPkiClientVerifier::builder_with_provider(store, provider.clone());
        if !settings.require_client_certificate {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|e| TlsError::at(path, e))?;
        Ok(Self { verifier, rules: Some((sha256(&text), settings.require_client_certificate)) })
    }

    pub(super) fn rules(&self) -> Option<([u8; 32], bool)> {
        self.rules
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    pub(super) fn judge<'c>(
        &self,
        certificate: Option<&'c ClientCertificate>,
        now: Timestamp,
    ) -> Result<Option<&'c [u8; 32]>, NoClientCertificate> {
        let Some((roots, is_required)) = self.rules else { return Ok(None) };
        let valid = certificate.filter(|certificate| certificate.is_valid(&*self.verifier, roots, now));
        match valid {
            None if is_required => Err(NoClientCertificate),
            valid => Ok(valid.map(|certificate| &certificate.thumbprint)),
        }
    }
}

impl ClientCertificate {
    /// The chain that a handshake brought, the client's own certificate first; `None` when it brought none.
    #[must_use]
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let thumbprint = sha256(chain.first()?);
        let parsed = chain.iter().filter_map(|certificate| X509Certificate::from_der(certificate).ok());
        let boundaries = parsed.flat_map(|(_, certificate)| {
            let validity = certificate.validity();
            // The last second is part of the validity (RFC 5280 §4.1.2.5).
            let end = validity.not_after.timestamp().saturating_add(1);
            [Timestamp::from_secs(validity.not_before.timestamp()), Timestamp::from_secs(end)]
        });
        let boundaries = boundaries.collect();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Self { chain, thumbprint, boundaries, verdict: Cell::new(None) })
    }

    /// SHA-256 of the client's own certificate in DER form.
    #[must_use]
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// Whether the chain is valid under these roots at `now`. Verified once between two boundaries; nothing else about
    /// the verdict depends on the time.
    fn is_valid(&self, verifier: &dyn ClientCertVerifier, roots: [u8; 32], now: Timestamp) -> bool {
        let kept = self.verdict.get();
        if let Some(kept) = kept.filter(|kept| kept.roots == roots && kept.from <= now && now < kept.until) {
            return kept.is_valid;
        }
        let at = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0));
        let outcome = self.chain.split_first().map(|(own, intermediates)| {
            verifier.verify_client_cert(own, intermediates, UnixTime::since_unix_epoch(at))
        });
        let is_valid = matches!(outcome, Some(Ok(_)));
        let boundaries = || self.boundaries.iter().copied();
        let verdict = ClientVerdict {
            roots,
            from: boundaries().filter(|at| *at <= now).max().unwrap_or(Timestamp::from_millis(i64::MIN)),
            until: boundaries().filter(|at| *at > now).min().unwrap_or(Timestamp::from_millis(i64::MAX)),
            is_valid,
        };
        self.verdict.set(Some(verdict));
        is_valid
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
