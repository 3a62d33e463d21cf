//! `[identity]`, `[identity.headers]` and `[bearer]`.

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::config::section::{Section, nearest};
use crate::config::units;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::policy::{IdentityClaim, IdentitySettings, OnOverflow};

/// The headers if the file does not set any.
const DEFAULTS: [(&str, &str); 5] = [
    ("x-auth-subject", "sub"),
    ("x-auth-client", "client"),
    ("x-auth-scope", "scope"),
    ("x-auth-roles", "roles"),
    ("x-auth-tenant", "tenant"),
];

/// Header fields that have a meaning in HTTP or are set by the gate: overwriting them would break the message
/// or the chain of trust (RFC 9110 §7.6.1, §7.2, §8.6).
const RESERVED: [&str; 20] = [
    "authorization",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "traceparent",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// The largest limit for an identity header: servers accept no more for a whole request head.
const MAX_VALUE: i64 = 64 * 1024;

/// `[identity]`.
pub(super) fn identity(s: &mut Section<'_>) -> IdentitySettings {
    IdentitySettings {
        strip_authorization: s.flag("strip_authorization", false),
        headers: s.table("headers", headers),
        max_value: usize::try_from(s.size("max_value", "4KiB", 1..=MAX_VALUE)).unwrap_or_default(),
        on_overflow: s.word("on_overflow", ("refuse", OnOverflow::Refuse), &[("omit", OnOverflow::Omit)]),
    }
}

/// `[bearer]`.
pub(super) fn bearer(s: &mut Section<'_>) -> BearerSettings {
    BearerSettings { websocket_protocol: s.parsed("websocket_protocol", "", websocket_protocol).flatten() }
}

/// The name of a WebSocket subprotocol (RFC 6455 §4.1: a token), or `""` for none.
fn websocket_protocol(text: &str) -> Result<Option<HeaderValue>, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match HeaderValue::from_str(text) {
        _ if text.is_empty() => Ok(None),
        Ok(name) if text.bytes().all(is_token) => Ok(Some(name)),
        _ => Err(format!("{text:?} is not a valid subprotocol name; write one word, such as \"bearer\"")),
    }
}

/// `[identity.headers]`: defaults that are not mentioned stay, `""` removes one.
fn headers(s: &mut Section<'_>) -> Vec<(HeaderName, IdentityClaim)> {
    let mut headers: Vec<(HeaderName, IdentityClaim)> = Vec::new();
    let mut folded: Vec<(String, &str)> = Vec::new();
    s.narrow_table(|| json!({ "additionalProperties": header_claim() }));
    for name in s.written() {
        let default = DEFAULTS.iter().find(|(known, _)| *known == name).map_or("", |(_, default)| default);
        let claim = s.parsed(name, default, claim).flatten();
        s.narrow(name, header_claim);
        if let Some((_, other)) = folded.iter().find(|(taken, _)| *taken == fold(name)) {
            s.problem(name, format!("is the same as {other:?} for an upstream that treats `_` and `-`, and upper and lower case, alike"));
        }
        folded.push((fold(name), name));
        match header(name) {
            Ok(header) => headers.extend(claim.map(|claim| (header, claim))),
            Err(message) => s.problem(name, message),
        }
    }
    for (name, default) in DEFAULTS {
        if !folded.iter().any(|(taken, _)| *taken == fold(name)) {
            let claim = s.parsed(name, default, claim).flatten();
            headers.extend(claim.map(|claim| (HeaderName::from_static(name), claim)));
        }
    }
    // Sorted, so that files with the same meaning give equal settings.
    headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    headers
}

/// The schema of what [`claim`] parses.
fn header_claim() -> Value {
    json!({ "type": "string", "pattern": r"^(sub|client|scope|roles|tenant|token\..+)?$" })
}

/// A field name as CGI, WSGI and similar interfaces see it (RFC 3875 §4.1.18).
fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn header(name: &str) -> Result<HeaderName, String> {
    if RESERVED.contains(&fold(name).as_str()) {
        return Err("cannot be an identity header: HTTP or the gate gives it another meaning".to_owned());
    }
    let header = name.parse().ok();
    header.ok_or_else(|| "is not a valid header name (letters, digits and `-`)".to_owned())
}

/// One of the known claims, `token.<claim>`, or `""` for none.
fn claim(text: &str) -> Result<Option<IdentityClaim>, String> {
    const WORDS: [&str; 5] = ["sub", "client", "scope", "roles", "tenant"];
    let claim = match text {
        "" => return Ok(None),
        "sub" => IdentityClaim::Subject,
        "client" => IdentityClaim::Client,
        "scope" => IdentityClaim::Scope,
        "roles" => IdentityClaim::Roles,
        "tenant" => IdentityClaim::Tenant,
        other => match other.strip_prefix("token.") {
            Some(claim) => IdentityClaim::Token(units::claim(claim)?),
            None => {
                let hint =
                    nearest(text, &WORDS).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
                let known = WORDS.join(", ");
                return Err(format!(
                    "{text:?} is unknown (known: {known}, and token.<claim> for any claim){hint}"
                ));
            }
        },
    };
    Ok(Some(claim))
}
