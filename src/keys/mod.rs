//! The public keys of each issuer: read from a file, a URL or by discovery, refreshed in the background, and
//! published to every worker as a snapshot.
//!
//! This room knows nothing about tokens. It answers "which keys could have made a signature with this `kid`
//! and algorithm".

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::Algorithm;

use authorization::KeyAuthorization;

mod asking;
pub mod authorization;
mod json;
pub mod jwks;
pub mod key;
pub mod presented;
pub mod refresh;
pub mod set;
pub mod source;
pub mod store;

/// Where an issuer's keys come from and how long they may be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The issuer, as in `iss`; a discovery document must name it too (RFC 8414 §3.3).
    pub issuer: String,
    /// The source of the keys.
    pub source: KeySource,
    /// The algorithms this issuer may use; a key that fits none of them is left out of the set.
    pub algorithms: Vec<Algorithm>,
    /// PEM file with the trusted roots for an `https` source; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Whether plain `http` is allowed to any host; otherwise only to loopback.
    pub insecure_http: bool,
    /// The credential to send with a fetch, if any; it goes only to the host that the configuration names.
    pub authorization: Option<KeyAuthorization>,
    /// Whether only keys for JWT-SVIDs count (SPIFFE JWT-SVID §6).
    pub for_svids: bool,
    /// How often the keys are fetched again.
    pub refresh_interval: Duration,
    /// Minimum time between fetches that requests cause.
    pub refresh_cooldown: Duration,
    /// How long the last good set is used while the issuer cannot be reached.
    pub max_stale: Duration,
}

/// Discovery with the system's roots and the default intervals of the configuration.
impl Default for Settings {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            source: KeySource::Discovery,
            algorithms: Vec::new(),
            ca: None,
            insecure_http: false,
            authorization: None,
            for_svids: false,
            refresh_interval: Duration::from_secs(5 * 60),
            refresh_cooldown: Duration::from_secs(30),
            max_stale: Duration::from_secs(24 * 3600),
        }
    }
}

impl Settings {
    /// A hash that identifies where the keys come from and how that source is trusted. Saved keys are used
    /// again only with settings that have the same provenance.
    #[must_use]
    pub fn provenance(&self) -> String {
        let (kind, place) = match &self.source {
            KeySource::File(path) => ("file", path.as_os_str().as_encoded_bytes()),
            KeySource::Url(url) => ("url", url.as_bytes()),
            KeySource::Discovery => ("discovery", self.issuer.as_bytes()),
            KeySource::SignalsMetadata(issuer) => ("signals", issuer.as_bytes()),
            // These keys are never saved.
            KeySource::Secret(_) | KeySource::Authority => ("process", &b""[..]),
        };
        let ca = self.ca.as_deref().map(|path| path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let insecure = [u8::from(self.insecure_http)];
        // No path and no URL contains a NUL.
        let named = [kind.as_bytes(), place, ca, &insecure[..]].join(&0);
        digest(&SHA256, &named).as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }
}

/// The source of an issuer's keys.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JWKS file (RFC 7517 §5), read at startup and again when it changes.
    File(PathBuf),
    /// A JWKS at this URL.
    Url(String),
    /// The `jwks_uri` of the issuer's metadata (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).
    Discovery,
    /// The `jwks_uri` in the metadata of a Shared Signals transmitter, which is named by its issuer (SSF 1.0
    /// §7).
    SignalsMetadata(String),
    /// One symmetric key, for HS256, HS384 and HS512.
    Secret(Vec<u8>),
    /// This process, which is the issuer itself.
    Authority,
}

impl std::fmt::Debug for KeySource {
    /// Never prints the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
            Self::Discovery => f.write_str("Discovery"),
            Self::SignalsMetadata(issuer) => f.debug_tuple("SignalsMetadata").field(issuer).finish(),
            Self::Authority => f.write_str("Authority"),
            Self::Secret(_) => f.write_str("Secret(…)"),
        }
    }
}
