//! `[[issuers]]` and `[issuers.claims]`.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::later::UNSUPPORTED;
use super::unique;
use crate::config::section::{Section, not_one_of};
use crate::config::settings::IssuerSettings;
use crate::config::values::Zero;
use crate::config::{units, url};
use crate::enforce::claims::{ClaimNames, IssuerRules};
use crate::enforce::policy::ClaimName;
use crate::keys::{self, Source};

/// The algorithms, and for those with a secret its least length in bytes (RFC 7518 §3.2: that of the hash).
const ALGORITHMS: [(&str, Algorithm, Option<usize>); 12] = [
    ("RS256", Algorithm::RS256, None),
    ("RS384", Algorithm::RS384, None),
    ("RS512", Algorithm::RS512, None),
    ("PS256", Algorithm::PS256, None),
    ("PS384", Algorithm::PS384, None),
    ("PS512", Algorithm::PS512, None),
    ("ES256", Algorithm::ES256, None),
    ("ES384", Algorithm::ES384, None),
    ("EdDSA", Algorithm::EdDSA, None),
    ("HS256", Algorithm::HS256, Some(32)),
    ("HS384", Algorithm::HS384, Some(48)),
    ("HS512", Algorithm::HS512, Some(64)),
];

/// All of them.
pub(super) fn issuers(s: &mut Section<'_>) -> Vec<IssuerSettings> {
    let mut names = Vec::new();
    s.tables("issuers", |s| {
        let issuer = issuer(s);
        unique(s, "issuer", &issuer.rules.issuer, &mut names);
        issuer
    })
}

fn issuer(s: &mut Section<'_>) -> IssuerSettings {
    let issuer = s.required("issuer", units::name).unwrap_or_default();
    let audiences = s.filled_list("audiences", &[], units::name);
    let algorithms = s.filled_list("algorithms", &["RS256", "ES256", "EdDSA"], algorithm);
    let insecure_http = s.flag("insecure_http", false);
    let keys = keys::Settings {
        source: source(s, &issuer, &algorithms, insecure_http),
        issuer: issuer.clone(),
        algorithms: algorithms.clone(),
        ca: ca(s),
        insecure_http,
        refresh_interval: s.duration("refresh_interval", "5m", Zero::Refused),
        refresh_cooldown: s.duration("refresh_cooldown", "30s", Zero::Refused),
        max_stale: s.duration("max_stale", "24h", Zero::Refused),
    };
    let rules = IssuerRules {
        issuer: Arc::from(issuer),
        audiences,
        algorithms,
        leeway: s.duration("leeway", "30s", Zero::Allowed),
        max_lifetime: s.duration("max_lifetime", "24h", Zero::Refused),
        token_types: s.filled_list("token_types", &["at+jwt", "application/at+jwt", "JWT"], units::name),
        required_claims: s.list("required_claims", &["sub"], units::name),
        claims: s.table("claims", claims),
    };
    IssuerSettings { rules, keys }
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let known = ALGORITHMS.iter().find(|(name, ..)| *name == text);
    known
        .map(|(_, algorithm, _)| *algorithm)
        .ok_or_else(|| not_one_of(text, &ALGORITHMS.map(|(name, ..)| name)))
}

/// Where the keys come from: exactly one of five keys.
fn source(s: &mut Section<'_>, issuer: &str, algorithms: &[Algorithm], insecure_http: bool) -> Source {
    let problems = s.reading.problems();
    let secret = s.secret("secret");
    let authority = s.flag("authority", false);
    if authority {
        s.problem("authority", UNSUPPORTED);
    }
    let sources = [
        ("jwks_url", jwks_url(s, insecure_http).map(Source::Url)),
        ("jwks_file", s.file("jwks_file").map(Source::File)),
        ("discovery", s.flag("discovery", false).then_some(Source::Discovery)),
        ("secret", secret.clone().map(|secret| Source::Secret(secret.into_bytes()))),
        ("authority", authority.then_some(Source::Discovery)),
    ];
    let chosen: Vec<_> = sources.iter().filter_map(|(key, source)| source.as_ref().map(|_| *key)).collect();
    match chosen.as_slice() {
        // One was meant, and what is wrong with it is known by now.
        [] if s.reading.problems() > problems => {}
        [] => s.own_problem(
            "has no source of keys: set one of jwks_url, jwks_file, discovery = true and secret",
        ),
        [_] => {}
        [.., last] => {
            s.problem(last, format!("is one source of keys too many: {}; keep one", units::listed(&chosen)))
        }
    }
    if chosen.contains(&"discovery")
        && let Err(message) = url::document(issuer, insecure_http)
    {
        s.problem("issuer", format!("cannot be used with discovery: {message}"));
    }
    if !chosen.is_empty() {
        fitting(s, algorithms, secret.as_deref());
    }
    sources.into_iter().find_map(|(_, source)| source).unwrap_or(Source::Discovery)
}

fn jwks_url(s: &mut Section<'_>, insecure_http: bool) -> Option<String> {
    let parse = |text: &str| match text {
        "" => Ok(None),
        text => url::document(text, insecure_http).map(|()| Some(text.to_owned())),
    };
    s.parsed("jwks_url", "", parse).flatten()
}

/// A secret and public keys are never mixed up: an algorithm must fit the one source there is.
fn fitting(s: &Section<'_>, algorithms: &[Algorithm], secret: Option<&str>) {
    for (name, algorithm, least) in ALGORITHMS {
        if !algorithms.contains(&algorithm) {
            continue;
        }
        match (least, secret) {
            (Some(least), Some(secret)) if secret.len() < least => {
                s.problem("secret", format!("is too short for {name}: it needs at least {least} bytes"));
            }
            (Some(_), None) => {
                s.problem("algorithms", format!("{name} needs a secret as the source of keys"))
            }
            (None, Some(_)) => s.problem(
                "algorithms",
                format!("{name} needs public keys, not a secret; with a secret use HS256, HS384 or HS512"),
            ),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

fn ca(s: &mut Section<'_>) -> Option<std::path::PathBuf> {
    let ca = s.file("ca");
    if ca.is_some() && !s.has("jwks_url") && !s.has("discovery") {
        s.problem("ca", "has no effect: the keys are not fetched over https");
    }
    ca
}

/// `[issuers.claims]`.
fn claims(s: &mut Section<'_>) -> ClaimNames {
    let mut claim = |key, default| {
        s.parsed(key, default, units::claim).unwrap_or_else(|| ClaimName::Member(String::new()))
    };
    ClaimNames {
        scope: claim("scope", "scope"),
        roles: claim("roles", "roles"),
        client: claim("client", "client_id"),
        tenant: claim("tenant", "tenant"),
        role_version: claim("role_version", "role_version"),
    }
}
