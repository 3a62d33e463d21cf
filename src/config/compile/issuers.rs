//! `[[issuers]]` and `[issuers.claims]`.

use std::path::PathBuf;
use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::conditions::conditions;
use super::shared;
use super::workloads::{self, Workload};
use crate::client::Url;
use crate::config::section::{Section, not_one_of};
use crate::config::settings::IssuerSettings;
use crate::config::values::Zero;
use crate::config::{material, units};
use crate::enforce::claims::{ClaimNames, IssuerRules};
use crate::enforce::dpop::SenderConstraint;
use crate::enforce::policy::ClaimName;
use crate::keys::key::check_secret;
use crate::keys::{self, KeySource};

/// The algorithms, and whether each needs a secret.
pub(super) const ALGORITHMS: [(&str, Algorithm, bool); 12] = [
    ("RS256", Algorithm::RS256, false),
    ("RS384", Algorithm::RS384, false),
    ("RS512", Algorithm::RS512, false),
    ("PS256", Algorithm::PS256, false),
    ("PS384", Algorithm::PS384, false),
    ("PS512", Algorithm::PS512, false),
    ("ES256", Algorithm::ES256, false),
    ("ES384", Algorithm::ES384, false),
    ("EdDSA", Algorithm::EdDSA, false),
    ("HS256", Algorithm::HS256, true),
    ("HS384", Algorithm::HS384, true),
    ("HS512", Algorithm::HS512, true),
];

/// The other name of EdDSA with this curve (RFC 9864 §2.2).
const ED25519: &str = "Ed25519";

/// The sender constraints that can be required.
const CONSTRAINTS: [(&str, SenderConstraint); 4] = [
    ("dpop", SenderConstraint::Dpop),
    ("mtls", SenderConstraint::Mtls),
    ("either", SenderConstraint::Either),
    ("ignore_dpop", SenderConstraint::IgnoreDpop),
];

/// Compiles all tables.
pub(super) fn issuers(s: &mut Section<'_>) -> Vec<IssuerSettings> {
    let mut lines = Vec::new();
    let mut issuers = s.tables("issuers", |s| {
        lines.push(s.line());
        issuer(s)
    });
    shared::share(s, &mut issuers, &lines);
    issuers
}

fn issuer(s: &mut Section<'_>) -> IssuerSettings {
    let workload = workloads::workload(s);
    s.describe("issuer", || json!({ "type": "string", "minLength": 1 }));
    let issuer = workload.issuer(s);
    s.narrow_table(named);
    s.look_for(&[Some(issuer.as_str()), workload.trust_domain()]);
    let audiences = s.filled_list("audiences", &[], units::name);
    let algorithms = algorithms(s, workload.algorithms());
    let insecure_http = s.flag("insecure_http", false);
    let source = source(s, &issuer, (&algorithms, insecure_http), &workload);
    workload.check(s, &source, &algorithms);
    if let KeySource::File(path) = &source
        && s.is_sound("algorithms")
    {
        material::key_set(s, "jwks_file", path, &algorithms, workload.trust_domain().is_some());
    }
    let keys = keys::Settings {
        ca: workload.roots(s).or_else(|| ca(s, &source)),
        authorization: workloads::authorization(s, &workload, &source, (&issuer, insecure_http)),
        source,
        issuer: issuer.clone(),
        algorithms: algorithms.clone(),
        insecure_http,
        for_svids: workload.trust_domain().is_some(),
        refresh_interval: s.duration("refresh_interval", "5m", Zero::Refused),
        refresh_cooldown: s.duration("refresh_cooldown", "30s", Zero::Refused),
        max_stale: s.duration("max_stale", "24h", Zero::Refused),
    };
    let rules = IssuerRules {
        issuer: Arc::from(issuer),
        trust_domain: workload.trust_domain().map(Box::from),
        audiences,
        // Set once [[resources]] has been read.
        resources: Vec::new(),
        algorithms,
        leeway: s.duration("leeway", "30s", Zero::Allowed),
        max_lifetime: s.duration("max_lifetime", "24h", Zero::Refused),
        token_types: s.filled_list("token_types", workload.token_types(), units::name),
        required_claims: s.list("required_claims", &["sub"], units::name),
        sender_constraint: s.word(
            "sender_constraint",
            ("when_bound", SenderConstraint::WhenBound),
            &CONSTRAINTS,
        ),
        claims: s.table("claims", claims),
        conditions: conditions(s, "conditions"),
    };
    IssuerSettings { rules, keys, idle_timeout: s.duration_or_none("idle_timeout", Zero::Allowed) }
}

/// The schema of an issuer's name.
fn named() -> Value {
    let is = |key: &str, what: Value| json!({ "required": [key], "properties": { key: what } });
    json!({ "anyOf": [
        is("issuer", json!({ "minLength": 1 })),
        is("kubernetes", json!({ "const": true })),
        is("spiffe_trust_domain", json!({ "minLength": 1 })),
    ] })
}

/// The algorithms of an issuer, without duplicates: EdDSA has two names.
fn algorithms(s: &mut Section<'_>, default: &[&str]) -> Vec<Algorithm> {
    let named = s.filled_list("algorithms", default, |text| Ok((text.to_owned(), algorithm(text)?)));
    s.narrow("algorithms", || {
        let names = ALGORITHMS.iter().map(|(name, ..)| *name).chain([ED25519]).collect::<Vec<_>>();
        json!({ "items": { "type": "string", "enum": names } })
    });
    let mut algorithms = Vec::new();
    for (_, algorithm) in named {
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    algorithms
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let names = ALGORITHMS.map(|(name, algorithm, _)| (name, algorithm));
    let known = names.iter().chain(&[(ED25519, Algorithm::EdDSA)]).find(|(name, _)| *name == text);
    let message = || match text {
        "ES512" => "\"ES512\" is not supported; use ES256 or ES384".to_owned(),
        "ES256K" => "\"ES256K\" is not supported; use ES256 or ES384".to_owned(),
        "Ed448" => "\"Ed448\" is not supported; use Ed25519".to_owned(),
        "none" => "\"none\" is not supported: tokens must be signed".to_owned(),
        other => not_one_of(other, &names.map(|(name, _)| name)),
    };
    known.map(|(_, algorithm)| *algorithm).ok_or_else(message)
}

/// The key source: exactly one of six keys.
fn source(
    s: &mut Section<'_>,
    issuer: &str,
    (algorithms, insecure_http): (&[Algorithm], bool),
    workload: &Workload,
) -> KeySource {
    let secret = s.secret("secret");
    let authority = s.flag("authority", false);
    let sources = [
        ("jwks_url", jwks_url(s, insecure_http).map(KeySource::Url)),
        ("jwks_file", s.file("jwks_file").map(KeySource::File)),
        ("discovery", s.flag("discovery", false).then_some(KeySource::Discovery)),
        ("secret", secret.clone().map(|secret| KeySource::Secret(secret.into_bytes()))),
        ("authority", authority.then_some(KeySource::Authority)),
        ("kubernetes", workload.key_source(s)),
    ];
    let chosen: Vec<_> = sources.iter().filter_map(|(key, source)| source.as_ref().map(|_| *key)).collect();
    match chosen.as_slice() {
        // A source was written but is wrong, which has been reported.
        [] if !sources.iter().all(|(key, _)| s.is_sound(key)) => {}
        [] => s.own_problem(
            "has no key source: set one of jwks_url, jwks_file, discovery = true, secret, authority = true or kubernetes = true",
        ),
        [_] => {}
        [.., last] => {
            s.problem(last, format!("has more than one key source: {}; keep one", units::listed(&chosen)))
        }
    }
    if chosen.contains(&"discovery")
        && s.is_sound("issuer")
        && let Err(message) = discoverable(issuer, insecure_http)
    {
        s.problem("issuer", format!("cannot be used with discovery: {message}"));
    }
    if !chosen.is_empty() {
        fitting(s, algorithms, secret.as_deref());
    }
    sources.into_iter().find_map(|(_, source)| source).unwrap_or(KeySource::Discovery)
}

/// The URL of a key set.
pub(super) fn jwks_url(s: &mut Section<'_>, insecure_http: bool) -> Option<String> {
    let parse = |text: &str| match text {
        "" => Ok(None),
        text => match Url::parse(text, insecure_http) {
            Ok(_) => Ok(Some(text.to_owned())),
            Err(error) => Err(error.to_string()),
        },
    };
    s.parsed("jwks_url", "", parse).flatten()
}

/// Whether the metadata of an issuer can be fetched.
fn discoverable(issuer: &str, insecure_http: bool) -> Result<(), String> {
    Url::parse(issuer, insecure_http).map_err(|error| error.to_string())?;
    keys::source::metadata_urls(issuer, insecure_http).map(drop).map_err(|error| error.to_string())
}

/// Checks that every algorithm fits the key source, so that a secret and public keys are never confused.
fn fitting(s: &Section<'_>, algorithms: &[Algorithm], secret: Option<&str>) {
    for (name, algorithm, symmetric) in ALGORITHMS {
        match (symmetric, secret) {
            _ if !algorithms.contains(&algorithm) => {}
            (true, None) => s.problem("algorithms", format!("{name} requires `secret` as the key source")),
            (false, Some(_)) => s.problem(
                "algorithms",
                format!("{name} requires public keys; with `secret`, use HS256, HS384 or HS512"),
            ),
            (true, Some(_)) | (false, None) => {}
        }
    }
    if let Some(Err(error)) = secret.map(|secret| check_secret(secret.as_bytes(), algorithms)) {
        s.problem("secret", error.to_string());
    }
}

/// The CA certificates for the server that publishes the keys.
pub(super) fn ca(s: &mut Section<'_>, source: &KeySource) -> Option<PathBuf> {
    let ca = s.file("ca");
    if ca.is_some() && matches!(source, KeySource::File(_) | KeySource::Secret(_) | KeySource::Authority) {
        s.problem("ca", "has no effect: the keys are not fetched over https");
    }
    material::roots(s, "ca", ca.as_deref());
    ca
}

/// A claim, or `None` for the empty string.
fn optional_claim(text: &str) -> Result<Option<ClaimName>, String> {
    if text.is_empty() { Ok(None) } else { units::claim(text).map(Some) }
}

/// `[issuers.claims]`.
fn claims(s: &mut Section<'_>) -> ClaimNames {
    let mut claim = |key, default| {
        s.parsed(key, default, units::claim).unwrap_or_else(|| ClaimName::Member(String::new()))
    };
    let subject = claim("subject", "sub");
    let (session, token_id, audience) =
        (claim("session", "sid"), claim("token_id", "jti"), claim("audience", "aud"));
    ClaimNames {
        subject,
        session,
        token_id,
        audience,
        client: claim("client", "client_id"),
        tenant: claim("tenant", "tenant"),
        role_version: claim("role_version", "role_version"),
        scope: s.one_or_more("scope", "scope", units::claim),
        roles: s.one_or_more("roles", "roles", units::claim),
        email: s.parsed("email", "", optional_claim).flatten(),
        aliases: s.list("aliases", &[], units::claim),
    }
}
