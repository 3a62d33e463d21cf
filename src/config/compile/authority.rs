//! Compiles `[authority]`, and checks it against its entry in `[[issuers]]`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use crate::authority::{self, Settings};
use crate::client::Url;
use crate::config::section::Section;
use crate::config::settings::IssuerSettings;
use crate::config::units;
use crate::config::values::Zero;
use crate::keys::KeySource;

/// The most keys that may be published at a time, which is about 200 KB.
const MOST_KEYS: u64 = 1_000;

/// Compiles the table, if present; the issuer with `authority = true` must match it.
pub(super) fn authority(s: &mut Section<'_>, issuers: &[IssuerSettings]) -> Option<Settings> {
    let settings = s.optional_table("authority", table);
    let mut own = issuers.iter().enumerate().filter(|(_, issuer)| issuer.keys.source == KeySource::Authority);
    match (&settings, own.next()) {
        (None, None) => {}
        (None, Some((place, _))) => {
            s.table_problem("issuers", place, "authority", "needs an [authority] table");
        }
        (Some(_), None) if !s.is_sound("issuers") => {}
        (Some(_), None) => {
            s.problem("authority", "needs an [[issuers]] with authority = true and the same issuer");
        }
        (Some(settings), Some((place, issuer))) => fit(s, settings, place, issuer),
    }
    for (place, _) in own {
        s.table_problem(
            "issuers",
            place,
            "authority",
            "only one issuer can use [authority], and another one does already",
        );
    }
    settings
}

fn table(s: &mut Section<'_>) -> Settings {
    let path = s.parsed("path", "portcullis.db", units::name).unwrap_or_default();
    let path = s.reading.beside(&path);
    s.show("path", path.to_string_lossy());
    let tenant_parameter = s.text("tenant_parameter", "");
    let token_lifetime = s.duration("token_lifetime", "1h", Zero::Refused);
    let number =
        |count: usize| NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
    Settings {
        issuer: Arc::from(s.required("issuer", issuer).unwrap_or_default()),
        audience: s.required("audience", units::name).unwrap_or_default(),
        // Set once [[resources]] has been read.
        resources: Vec::new(),
        token_path: s.parsed("token_path", "/oauth/token", token_path).unwrap_or_default(),
        token_lifetime,
        signing_algorithm: s.word(
            "signing_algorithm",
            ("ES256", Algorithm::ES256),
            &[("RS256", Algorithm::RS256), ("EdDSA", Algorithm::EdDSA)],
        ),
        key_rotation: key_rotation(s, token_lifetime),
        tenant_parameter: (!tenant_parameter.is_empty()).then_some(tenant_parameter),
        failures_per_client: number(s.count("failures_per_client", 10, 1..=1_000_000)),
        failures_per_address: number(s.count("failures_per_address", 100, 1..=1_000_000)),
        scopes: s.list("scopes", &[], units::scope),
        introspection_clients: s.list("introspection_clients", &[], units::name),
        global_token_revocation: None,
        binds_certificates: false,
        path,
    }
}

/// Parses `key_rotation`. A key is published until its last token has expired, so a short rotation publishes
/// many keys at a time, all in one document that every verifier fetches.
fn key_rotation(s: &mut Section<'_>, token_lifetime: Duration) -> Duration {
    let rotation = s.duration("key_rotation", "30d", Zero::Refused);
    let published = token_lifetime.saturating_add(authority::KEY_MARGIN);
    let shortest = Duration::from_secs((published.as_secs() / MOST_KEYS + 1).max(1));
    if rotation < shortest && s.is_sound("key_rotation") {
        let shortest = shortest.as_secs();
        s.problem(
            "key_rotation",
            format!("is too short: more than {MOST_KEYS} keys would be published at the same time; with this token_lifetime the minimum is \"{shortest}s\""),
        );
    }
    rotation
}

/// RFC 8414 §2: a URL without query and fragment; `http` is allowed on loopback, for trials.
fn issuer(text: &str) -> Result<String, String> {
    Url::parse(text, false).map_err(|error| error.to_string())?;
    if text.contains('?') { Err("must not have a query".to_owned()) } else { Ok(text.to_owned()) }
}

fn token_path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let segment =
        |segment: &str| !segment.is_empty() && segment.chars().all(plain) && !segment.starts_with('.');
    match text.strip_prefix('/') {
        Some(rest) if rest.split('/').all(segment) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a path of plain segments such as \"/oauth/token\"")),
    }
}

/// Checks that the gate would accept the tokens that the authority issues.
fn fit(s: &Section<'_>, settings: &Settings, place: usize, issuer: &IssuerSettings) {
    let rules = &issuer.rules;
    let problem = |key: &str, message: String| s.table_problem("issuers", place, key, message);
    if rules.issuer != settings.issuer && !settings.issuer.is_empty() {
        problem("issuer", format!("differs from that of [authority], {:?}", settings.issuer));
    }
    if !rules.audiences.contains(&settings.audience) && !settings.audience.is_empty() {
        problem("audiences", format!("must include that of [authority], {:?}", settings.audience));
    }
    if !rules.algorithms.contains(&settings.signing_algorithm) {
        problem("algorithms", format!("must include that of [authority], {:?}", settings.signing_algorithm));
    }
    if !rules.token_types.iter().any(|known| known.eq_ignore_ascii_case("at+jwt")) {
        problem(
            "token_types",
            "must include \"at+jwt\", the type of the tokens that [authority] issues".to_owned(),
        );
    }
    if rules.max_lifetime < settings.token_lifetime {
        let longer = "is less than token_lifetime of [authority]: its tokens would be rejected";
        problem("max_lifetime", longer.to_owned());
    }
}
