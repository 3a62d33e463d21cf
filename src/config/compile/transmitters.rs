//! `[[event_transmitters]]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{issuers, streams, unique};
use crate::config::section::{Section, nearest};
use crate::config::settings::{IssuerSettings, event_issuer};
use crate::config::values::Zero;
use crate::config::{material, units};
use crate::enforce::claims::ClaimNames;
use crate::enforce::policy::ClaimName;
use crate::events::EventIssuer;
use crate::keys::{self, KeySource};
use crate::signals::ssf;
use crate::signals::subject::SubjectIssuer;

/// Compiles all tables. An unknown issuer is reported only if the existing ones have no problems. `endpoint`
/// returns the URL that the transmitter with a name pushes to, if known.
pub(super) fn transmitters(
    s: &mut Section<'_>,
    issuers: &[IssuerSettings],
    endpoint: impl Fn(&str) -> Option<String>,
) -> Vec<ssf::Settings> {
    let mut names = Vec::new();
    let issuers = s.is_sound("issuers").then_some(issuers);
    s.tables("event_transmitters", |s| {
        let transmitter = transmitter(s, issuers, &endpoint);
        unique(s, "name", &transmitter.name, &mut names);
        transmitter
    })
}

fn transmitter(
    s: &mut Section<'_>,
    issuers: Option<&[IssuerSettings]>,
    endpoint: impl Fn(&str) -> Option<String>,
) -> ssf::Settings {
    let name = s.required("name", segment).unwrap_or_default();
    let (subject_issuer, role_claims) = subjects(s, issuers);
    let issuer = s.required("issuer", units::name).unwrap_or_default();
    let insecure_http = s.flag("insecure_http", false);
    let source = source(s, Some(&issuer), insecure_http);
    let ca = ca(s, &source);
    let discovers = matches!(source, KeySource::SignalsMetadata(_));
    let reached = (ca.clone(), insecure_http);
    ssf::Settings {
        audience: s.required("audience", units::name).unwrap_or_default(),
        transmission: streams::transmission(s, endpoint(&name), discovers, reached),
        keys: key_settings(s, ("event_transmitters", &name), source, (ca, insecure_http)),
        issuer,
        name,
        subject_issuer,
        role_claims,
        critical_members: s.list("critical_members", &[], units::name),
        tolerant: s.flag("tolerant", false),
        authorization: streams::field_value(s, "authorization"),
    }
}

/// Whether this can be a field value that arrives unchanged (RFC 9110 §5.5).
pub(super) fn is_field_value(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim_ascii() == text
}

/// A name that can be a path segment as it is (RFC 3986 §2.3), so that the URL has only one spelling.
pub(super) fn segment(text: &str) -> Result<String, String> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if text.bytes().all(unreserved) && !matches!(text, "." | "..") {
        return units::name(text);
    }
    Err(format!("{text:?} cannot be used in the path of an endpoint; use letters, digits and - . _ ~"))
}

/// The keys of a sender in one of these tables, which has no metadata.
pub(super) fn keys(s: &mut Section<'_>, table: &str, name: &str) -> keys::Settings {
    let insecure_http = s.flag("insecure_http", false);
    let source = source(s, None, insecure_http);
    let ca = issuers::ca(s, &source);
    key_settings(s, (table, name), source, (ca, insecure_http))
}

fn key_settings(
    s: &mut Section<'_>,
    (table, name): (&str, &str),
    source: KeySource,
    (ca, insecure_http): (Option<PathBuf>, bool),
) -> keys::Settings {
    let asymmetric = issuers::ALGORITHMS.iter().filter(|(.., symmetric)| !symmetric);
    let algorithms: Vec<_> = asymmetric.map(|(_, algorithm, _)| *algorithm).collect();
    if let KeySource::File(path) = &source {
        material::key_set(s, "jwks_file", path, &algorithms, false);
    }
    keys::Settings {
        // The name of these keys in logs and metrics; a transmitter often has the same name as an issuer.
        issuer: format!("{table}/{name}"),
        ca,
        source,
        algorithms,
        insecure_http,
        authorization: None,
        for_svids: false,
        refresh_interval: s.duration("refresh_interval", "5m", Zero::Refused),
        refresh_cooldown: s.duration("refresh_cooldown", "30s", Zero::Refused),
        max_stale: s.duration("max_stale", "24h", Zero::Refused),
    }
}

/// The key source: exactly one of two keys, or of three for a sender with metadata.
fn source(s: &mut Section<'_>, issuer: Option<&str>, insecure_http: bool) -> KeySource {
    let discovered = issuer.filter(|_| s.flag("discovery", false));
    let sources = [
        ("jwks_url", issuers::jwks_url(s, insecure_http).map(KeySource::Url)),
        ("jwks_file", s.file("jwks_file").map(KeySource::File)),
        ("discovery", discovered.map(|issuer| KeySource::SignalsMetadata(issuer.to_owned()))),
    ];
    let chosen: Vec<_> = sources.iter().filter_map(|(key, source)| source.as_ref().map(|_| *key)).collect();
    match chosen.as_slice() {
        [] if sources.iter().all(|(key, _)| s.is_sound(key)) => {
            let discovery = if issuer.is_some() { ", or discovery = true" } else { "" };
            s.own_problem(format!("has no key source: set one of jwks_url or jwks_file{discovery}"));
        }
        [] | [_] => {}
        [.., last] => {
            s.problem(last, format!("has more than one key source: {}; keep one", units::listed(&chosen)));
        }
    }
    if let Some(issuer) = discovered.filter(|issuer| !issuer.is_empty())
        && s.is_sound("issuer")
        && let Err(error) = keys::source::signals_metadata_url(issuer, insecure_http)
    {
        s.problem("issuer", format!("cannot be used with discovery: {error}"));
    }
    sources.into_iter().find_map(|(_, source)| source).unwrap_or(KeySource::Discovery)
}

/// The CA certificates for all servers of the transmitter.
fn ca(s: &mut Section<'_>, source: &KeySource) -> Option<PathBuf> {
    let fetches = s.has("poll_url");
    match source {
        KeySource::File(_) if fetches => {
            let ca = s.file("ca");
            material::roots(s, "ca", ca.as_deref());
            ca
        }
        source => issuers::ca(s, source),
    }
}

/// The issuer whose subjects are meant, and the claims with roles and scopes in its tokens.
fn subjects(s: &mut Section<'_>, issuers: Option<&[IssuerSettings]>) -> (SubjectIssuer, Vec<String>) {
    let (issuer, claims) = subject_issuer(s, "subject_issuer", issuers);
    let claims = claims.iter().flat_map(|claims| claims.roles.iter().chain(&claims.scope));
    (issuer, claims.filter_map(member).map(str::to_owned).collect())
}

/// The issuer that a key names, whose subjects a sender of signals reports on; and the claims of its tokens.
pub(super) fn subject_issuer(
    s: &mut Section<'_>,
    key: &'static str,
    issuers: Option<&[IssuerSettings]>,
) -> (SubjectIssuer, Vec<ClaimNames>) {
    let name = s.required(key, units::name);
    let known = issuers.into_iter().flatten().map(|issuer| &issuer.rules);
    if let (Some(name), Some(issuers)) = (&name, issuers)
        && let Some(issuer) = event_issuer(issuers, name)
    {
        let claims = known.filter(|rules| rules.issuer == issuer.issuer).map(|rules| rules.claims.clone());
        let claims: Vec<ClaimNames> = claims.collect();
        let named = SubjectIssuer {
            issuer,
            has_email: claims.iter().any(|claims| claims.email.is_some()),
            has_aliases: claims.iter().any(|claims| !claims.aliases.is_empty()),
        };
        return (named, claims);
    }
    if let (Some(name), Some(_)) = (name, issuers) {
        let names: Vec<&str> = known.map(|rules| &*rules.issuer).collect();
        let hint = nearest(&name, &names).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        s.problem(key, format!("{name:?} is not the issuer of any [[issuers]]{hint}"));
    }
    let nobody = EventIssuer { issuer: Arc::default(), leeway: Duration::ZERO, max_lifetime: Duration::ZERO };
    (SubjectIssuer { issuer: nobody, has_email: false, has_aliases: false }, Vec::new())
}

/// The top-level member of the payload that contains a claim. A signal about that member may mean another part
/// of it and then ends tokens that are still valid; comparing more precisely could miss tokens that are not.
fn member(claim: &ClaimName) -> Option<&str> {
    match claim {
        ClaimName::Member(name) => Some(name),
        ClaimName::Pointer(tokens) => tokens.first().map(String::as_str),
    }
}
