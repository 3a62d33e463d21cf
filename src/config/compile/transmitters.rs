//! `[[event_transmitters]]`.

use std::sync::Arc;
use std::time::Duration;

use super::{issuers, unique};
use crate::config::section::{Section, nearest};
use crate::config::settings::IssuerSettings;
use crate::config::values::Zero;
use crate::config::{material, units};
use crate::enforce::claims::ClaimNames;
use crate::enforce::policy::ClaimName;
use crate::events::EventIssuer;
use crate::keys::{self, KeySource};
use crate::signals::subject::SubjectIssuer;
use crate::signals::{Concealed, ssf};

/// All of them. Whether an issuer is unknown is not said while those that there are have mistakes of their own.
pub(super) fn transmitters(s: &mut Section<'_>, issuers: &[IssuerSettings]) -> Vec<ssf::Settings> {
    let mut names = Vec::new();
    let issuers = s.is_sound("issuers").then_some(issuers);
    s.tables("event_transmitters", |s| {
        let transmitter = transmitter(s, issuers);
        unique(s, "name", &transmitter.name, &mut names);
        transmitter
    })
}

fn transmitter(s: &mut Section<'_>, issuers: Option<&[IssuerSettings]>) -> ssf::Settings {
    let name = s.required("name", segment).unwrap_or_default();
    let (subject_issuer, role_claims) = subjects(s, issuers);
    ssf::Settings {
        issuer: s.required("issuer", units::name).unwrap_or_default(),
        audience: s.required("audience", units::name).unwrap_or_default(),
        keys: keys(s, "event_transmitters", &name),
        name,
        subject_issuer,
        role_claims,
        critical_members: s.list("critical_members", &[], units::name),
        tolerant: s.flag("tolerant", false),
        authorization: authorization(s),
    }
}

/// The value of the `Authorization` field that the transmitter repeats with each push.
fn authorization(s: &mut Section<'_>) -> Option<Concealed> {
    let value = s.secret("authorization")?;
    if !is_field_value(&value) {
        s.problem(
            "authorization",
            "cannot be the value of a field: it must be visible ASCII, with spaces inside only",
        );
    }
    Some(Concealed::new(value))
}

/// Whether a field can have this value, and arrives as it was sent (RFC 9110 §5.5).
fn is_field_value(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim_ascii() == text
}

/// A name that is one segment of a path as it stands (RFC 3986 §2.3), and so the same in every spelling of the URL.
pub(super) fn segment(text: &str) -> Result<String, String> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if text.bytes().all(unreserved) && !matches!(text, "." | "..") {
        return units::name(text);
    }
    Err(format!("{text:?} cannot be in the path of an endpoint; use letters, digits, and - . _ ~"))
}

/// The keys of a sender in one of these tables.
pub(super) fn keys(s: &mut Section<'_>, table: &str, name: &str) -> keys::Settings {
    let asymmetric = issuers::ALGORITHMS.iter().filter(|(.., symmetric)| !symmetric);
    let algorithms: Vec<_> = asymmetric.map(|(_, algorithm, _)| *algorithm).collect();
    let insecure_http = s.flag("insecure_http", false);
    let source = source(s, insecure_http);
    if let KeySource::File(path) = &source {
        material::key_set(s, "jwks_file", path, &algorithms);
    }
    keys::Settings {
        // What logs and metrics call these keys: a transmitter often has the name of an issuer.
        issuer: format!("{table}/{name}"),
        ca: issuers::ca(s, &source),
        source,
        algorithms,
        insecure_http,
        refresh_interval: s.duration("refresh_interval", "5m", Zero::Refused),
        refresh_cooldown: s.duration("refresh_cooldown", "30s", Zero::Refused),
        max_stale: s.duration("max_stale", "24h", Zero::Refused),
    }
}

/// Where the keys come from: exactly one of two keys.
fn source(s: &mut Section<'_>, insecure_http: bool) -> KeySource {
    let url = issuers::jwks_url(s, insecure_http).map(KeySource::Url);
    let file = s.file("jwks_file").map(KeySource::File);
    match (&url, &file) {
        (Some(_), Some(_)) => {
            s.problem("jwks_file", "is one source of keys too many beside jwks_url; keep one")
        }
        (None, None) if s.is_sound("jwks_url") && s.is_sound("jwks_file") => {
            s.own_problem("has no source of keys: set one of jwks_url and jwks_file");
        }
        _ => {}
    }
    url.or(file).unwrap_or(KeySource::Discovery)
}

/// The issuer whose subjects are meant, and where its tokens carry roles and scopes.
fn subjects(s: &mut Section<'_>, issuers: Option<&[IssuerSettings]>) -> (SubjectIssuer, Vec<String>) {
    let (issuer, claims) = subject_issuer(s, "subject_issuer", issuers);
    let claims = claims.iter().flat_map(|claims| [&claims.roles, &claims.scope]);
    (issuer, claims.filter_map(member).map(str::to_owned).collect())
}

/// The issuer that a key names, of whose subjects a sender of signals speaks; and where its tokens have their claims.
pub(super) fn subject_issuer(
    s: &mut Section<'_>,
    key: &'static str,
    issuers: Option<&[IssuerSettings]>,
) -> (SubjectIssuer, Option<ClaimNames>) {
    let name = s.required(key, units::name);
    let known = issuers.into_iter().flatten().map(|issuer| &issuer.rules);
    if let Some(rules) = known.clone().find(|rules| name.as_deref() == Some(&*rules.issuer)) {
        let (issuer, leeway, max_lifetime) = (Arc::clone(&rules.issuer), rules.leeway, rules.max_lifetime);
        let named = SubjectIssuer {
            issuer: EventIssuer { issuer, leeway, max_lifetime },
            has_email: rules.claims.email.is_some(),
            has_aliases: !rules.claims.aliases.is_empty(),
        };
        return (named, Some(rules.claims.clone()));
    }
    if let (Some(name), Some(_)) = (name, issuers) {
        let names: Vec<&str> = known.map(|rules| &*rules.issuer).collect();
        let hint = nearest(&name, &names).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        s.problem(key, format!("{name:?} is not the issuer of any [[issuers]]{hint}"));
    }
    let nobody = EventIssuer { issuer: Arc::default(), leeway: Duration::ZERO, max_lifetime: Duration::ZERO };
    (SubjectIssuer { issuer: nobody, has_email: false, has_aliases: false }, None)
}

/// The member of the payload in which a claim is. A signal that names it may mean another part of it, and then ends
/// tokens that are as good as before; the other way round it would leave some that are not.
fn member(claim: &ClaimName) -> Option<&str> {
    match claim {
        ClaimName::Member(name) => Some(name),
        ClaimName::Pointer(tokens) => tokens.first().map(String::as_str),
    }
}
