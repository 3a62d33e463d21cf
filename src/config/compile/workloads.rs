//! Compiles issuers of workloads, which determine their own key source and name: the service accounts of a
//! Kubernetes cluster, and SPIFFE trust domains.

use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;

use crate::client::Url;
use crate::config::section::Section;
use crate::config::units;
use crate::enforce::spiffe;
use crate::jose::jws::Jws;
use crate::keys::KeySource;
use crate::keys::authorization::{KeyAuthorization, check_token};
use crate::tls;

/// Where a pod finds the token of its service account, and the CA certificate of its API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The issuer of tokens that never expire: those from Secrets, and from clusters before Kubernetes 1.21.
const LEGACY: &str = "kubernetes/serviceaccount";
/// The path of the API server's key set (Kubernetes, "Service account issuer discovery").
const KEYS: &str = "/openid/v1/jwks";
/// The API server's name in every cluster.
const API_SERVER: &str = "https://kubernetes.default.svc";

/// The kind of issuer that a table configures.
pub(super) enum Workload {
    /// An ordinary issuer.
    None,
    /// The cluster whose service account is mounted in this folder.
    Kubernetes(PathBuf),
    /// This SPIFFE trust domain.
    Spiffe(String),
}

/// Reads the keys that decide the kind of issuer.
pub(super) fn workload(s: &mut Section<'_>) -> Workload {
    let kubernetes = s.flag("kubernetes", false);
    let path = s.parsed("kubernetes_path", SERVICE_ACCOUNT, units::name).unwrap_or_default();
    if path != SERVICE_ACCOUNT && !kubernetes && s.is_sound("kubernetes") && s.is_sound("kubernetes_path") {
        s.problem("kubernetes_path", "has no effect without kubernetes = true");
    }
    let domain = s.parsed("spiffe_trust_domain", "", trust_domain).flatten();
    match (kubernetes, domain) {
        (true, Some(_)) => {
            s.problem(
                "spiffe_trust_domain",
                "cannot be combined with kubernetes = true; use two [[issuers]]",
            );
            Workload::Kubernetes(s.reading.beside(&path))
        }
        (true, None) => Workload::Kubernetes(s.reading.beside(&path)),
        (false, Some(domain)) => Workload::Spiffe(domain),
        (false, None) => Workload::None,
    }
}

/// A trust domain as in SPIFFE-ID §2.1.
fn trust_domain(text: &str) -> Result<Option<String>, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    match text {
        "" => Ok(None),
        _ if text.starts_with("spiffe://") => {
            Err("must be a name such as \"example.org\", without spiffe://".to_owned())
        }
        _ if text.len() <= 255 && text.bytes().all(fits) => Ok(Some(text.to_owned())),
        _ => Err(format!(
            "{text:?} is not a trust domain: up to 255 lower-case letters, digits, dots, dashes and underscores"
        )),
    }
}

impl Workload {
    /// The issuer's name: from the table, or determined by the workload.
    pub(super) fn issuer(&self, s: &mut Section<'_>) -> String {
        let own = match self {
            Self::None => return s.required("issuer", units::name).unwrap_or_default(),
            Self::Spiffe(domain) => format!("{}{domain}", spiffe::SCHEME),
            Self::Kubernetes(_) if s.has("issuer") => String::new(),
            Self::Kubernetes(path) => match issuer_of(&path.join("token")) {
                Ok(issuer) => issuer,
                // When judging a token of another issuer, this one is not needed.
                Err(_) if !s.reading.is_complete() => "kubernetes".to_owned(),
                Err(message) => {
                    s.problem(
                        "kubernetes",
                        format!("{message}; outside a pod, or without a service account token, set issuer"),
                    );
                    return String::new();
                }
            },
        };
        s.parsed("issuer", &own, units::name).unwrap_or_default()
    }

    /// The key set of the API server.
    pub(super) fn key_source(&self, s: &Section<'_>) -> Option<KeySource> {
        let Self::Kubernetes(_) = self else { return None };
        let url = api_server(|name| std::env::var(name).ok()) + KEYS;
        if let Err(error) = Url::parse(&url, false) {
            s.problem("kubernetes", format!("KUBERNETES_SERVICE_HOST and _PORT make {url:?}, which {error}"));
        }
        Some(KeySource::Url(url))
    }

    /// The CA certificate of the API server, in place of `ca`.
    pub(super) fn roots(&self, s: &mut Section<'_>) -> Option<PathBuf> {
        let Self::Kubernetes(path) = self else { return None };
        if s.file("ca").is_some() {
            s.problem(
                "ca",
                "cannot be combined with kubernetes = true, which uses that of the service account",
            );
        }
        let path = s.reading.resolve(&path.join("ca.crt").to_string_lossy());
        if s.looks()
            && s.is_sound("kubernetes")
            && let Err(error) = tls::client_config(Some(&path), None, &[])
        {
            s.problem("kubernetes", error.to_string());
        }
        Some(path)
    }

    /// The default algorithms of its tokens.
    pub(super) const fn algorithms(&self) -> &'static [&'static str] {
        match self {
            Self::None | Self::Kubernetes(_) => &["RS256", "ES256", "EdDSA"],
            Self::Spiffe(_) => &["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"],
        }
    }

    /// The default types of its tokens.
    pub(super) const fn token_types(&self) -> &'static [&'static str] {
        match self {
            Self::None | Self::Kubernetes(_) => &["at+jwt", "application/at+jwt", "JWT"],
            // SPIFFE JWT-SVID §2.3.
            Self::Spiffe(_) => &["JWT", "JOSE"],
        }
    }

    /// The trust domain that its tokens belong to.
    pub(super) fn trust_domain(&self) -> Option<&str> {
        match self {
            Self::Spiffe(domain) => Some(domain),
            Self::None | Self::Kubernetes(_) => None,
        }
    }

    /// Reports settings that cannot be combined with a trust domain.
    pub(super) fn check(&self, s: &Section<'_>, source: &KeySource, algorithms: &[Algorithm]) {
        let Self::Spiffe(_) = self else { return };
        let other = match source {
            KeySource::Url(_) | KeySource::File(_) | KeySource::SignalsMetadata(_) => None,
            KeySource::Discovery => Some("discovery"),
            KeySource::Secret(_) => Some("secret"),
            KeySource::Authority => Some("authority"),
        };
        if let Some(key) = other.filter(|key| s.has(key) && s.is_sound(key)) {
            let message = "cannot be combined with spiffe_trust_domain: set jwks_url or jwks_file to the trust domain's bundle";
            s.problem(key, message);
        }
        if algorithms.contains(&Algorithm::EdDSA) {
            s.problem("algorithms", "JWT-SVIDs do not use EdDSA (SPIFFE JWT-SVID §2.1)");
        }
    }
}

/// The `Authorization` that is sent when keys are fetched.
pub(super) fn authorization(
    s: &mut Section<'_>,
    workload: &Workload,
    source: &KeySource,
    (issuer, insecure_http): (&str, bool),
) -> Option<KeyAuthorization> {
    const KEY: &str = "jwks_authorization";
    let written = s.secret_or_file(KEY).map(|(token, file)| {
        if s.looks()
            && s.is_sound(KEY)
            && let Err(wrong) = check_token(token.trim_ascii_end())
        {
            s.problem(KEY, wrong);
        }
        file.map_or(KeyAuthorization::Token(token), KeyAuthorization::File)
    });
    if let Workload::Kubernetes(path) = workload {
        if written.is_some() {
            s.problem(
                KEY,
                "cannot be combined with kubernetes = true, which sends the token of the service account",
            );
        }
        return Some(KeyAuthorization::File(path.join("token")));
    }
    let url = match source {
        KeySource::Url(url) => url,
        KeySource::Discovery | KeySource::SignalsMetadata(_) => issuer,
        KeySource::File(_) | KeySource::Secret(_) | KeySource::Authority => {
            if written.is_some() {
                s.problem(KEY, "has no effect: the keys are not fetched");
            }
            return None;
        }
    };
    if written.is_some() && Url::parse(url, insecure_http).is_ok_and(|url| url.is_exposed()) {
        s.problem(KEY, "would be sent over plain http, where others can read it; use https");
    }
    written
}

/// Returns the issuer of the cluster, read from the pod's own token.
fn issuer_of(token: &Path) -> Result<String, String> {
    let shown = token.display();
    let text = std::fs::read_to_string(token).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let jws = Jws::parse(text.trim_ascii().as_bytes()).ok();
    match jws.as_ref().and_then(|jws| jws.payload.get("iss")?.as_str()) {
        None | Some("") => Err(format!("{shown} is not a token with an issuer")),
        Some(LEGACY) => {
            Err(format!("{shown} is a legacy token that never expires and does not name the cluster"))
        }
        Some(issuer) => Ok(issuer.to_owned()),
    }
}

/// The address of the API server, as clients in a cluster find it.
fn api_server(variable: impl Fn(&str) -> Option<String>) -> String {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    match (set("KUBERNETES_SERVICE_HOST"), set("KUBERNETES_SERVICE_PORT")) {
        (Some(host), Some(port)) if host.contains(':') => format!("https://[{host}]:{port}"),
        (Some(host), Some(port)) => format!("https://{host}:{port}"),
        _ => API_SERVER.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_is_where_clients_in_a_cluster_look_for_it() {
        for (host, port, expected) in [
            (Some("10.96.0.1"), Some("443"), "https://10.96.0.1:443"),
            (Some("fd00::1"), Some("6443"), "https://[fd00::1]:6443"),
            (Some("api.example.com"), Some("6443"), "https://api.example.com:6443"),
            (Some("10.96.0.1"), None, "https://kubernetes.default.svc"),
            (None, Some("443"), "https://kubernetes.default.svc"),
            (Some(""), Some("443"), "https://kubernetes.default.svc"),
            (Some("10.96.0.1"), Some(""), "https://kubernetes.default.svc"),
            (None, None, "https://kubernetes.default.svc"),
        ] {
            let variable = |name: &str| match name {
                "KUBERNETES_SERVICE_HOST" => host.map(str::to_owned),
                "KUBERNETES_SERVICE_PORT" => port.map(str::to_owned),
                other => unreachable!("{other}"),
            };
            assert_eq!(api_server(variable), expected, "{host:?} {port:?}");
        }
    }

    #[test]
    fn a_trust_domain_is_a_name_in_lower_case() {
        let longest = "a".repeat(255);
        for good in ["example.org", "a", "prod-1.example_2.org", &longest] {
            assert_eq!(trust_domain(good), Ok(Some(good.to_owned())));
        }
        assert_eq!(trust_domain(""), Ok(None));
        let too_long = "a".repeat(256);
        for bad in [
            "spiffe://example.org",
            "Example.org",
            "example.org/ns",
            "example.org:8443",
            "u@example.org",
            "é",
            " ",
            &too_long,
        ] {
            assert!(trust_domain(bad).is_err(), "{bad}");
        }
    }
}
