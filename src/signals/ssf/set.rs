//! Verifies a security event token (RFC 8417) with the restrictions of Shared Signals (SSF §4.1), and
//! parses its claims strictly.
//!
//! Covers what all such tokens have in common; the meaning of the events is decided elsewhere.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::{Code, KeysAsked, Settings, SignalRefusal, Unaccepted, apple, malformed};
use crate::events::parse::seconds;
use crate::jose::jws::{Jws, JwsError};
use crate::keys::store::KeyStore;
use crate::signals::proof::{self, Unproven};
use crate::time::Timestamp;

/// Numbers from here on cannot be seconds: they would be in the year 33658 or later.
const MILLISECONDS: f64 = 1e12;

/// The accepted clock difference. It is large because transmitters do not repeat rejected signals, which would
/// be lost. "Usually no more than a few minutes" (RFC 7519 §4.1.4, §4.1.5).
const CLOCKS: Duration = Duration::from_secs(300);

/// The content of a verified token.
#[derive(Debug)]
pub(super) struct Set {
    /// `sub_id`.
    pub(super) subject: Option<Value>,
    /// `jti`.
    pub(super) id: String,
    /// When the event happened, by the transmitter's clock, unless the event itself has a time: `toe`, or else `iat`.
    pub(super) at: Timestamp,
    /// The events by type; each value is an object.
    pub(super) events: Map<String, Value>,
}

/// Verifies a token and parses its claims.
pub(super) fn read(
    token: &[u8],
    settings: &Settings,
    keys: &KeyStore,
    asked: KeysAsked,
    now: Timestamp,
) -> Result<Set, Unaccepted> {
    let jws = Jws::parse(token).map_err(|error| match error {
        JwsError::NoJws => malformed("the body is not a signed JWT in compact serialization"),
        JwsError::Unacceptable => malformed("the token is ambiguous or requires an unsupported extension"),
    })?;
    check_type(&jws, settings.tolerant)?;
    let algorithm = jws.algorithm().filter(|algorithm| settings.keys.algorithms.contains(algorithm));
    let algorithm = algorithm.ok_or(invalid_key("the token's algorithm is not accepted"))?;
    check_parties(&jws.payload, settings)?;
    check_signature(&jws, algorithm, keys, asked, now)?;
    Ok(claims(jws.payload, settings, now)?)
}

/// Checks the explicit type, which keeps other tokens of the same issuer from being accepted as events (RFC
/// 8417 §4.2). Without it, the `events` claim is the only difference left.
fn check_type(jws: &Jws<'_>, tolerant: bool) -> Result<(), SignalRefusal> {
    let typ = jws.token_type().unwrap_or_default();
    let is = |expected: &str| typ.eq_ignore_ascii_case(expected);
    if is("secevent+jwt") || is("application/secevent+jwt") || (tolerant && is("JWT")) {
        return Ok(());
    }
    Err(malformed("the token's `typ` is not secevent+jwt"))
}

fn check_parties(payload: &Map<String, Value>, settings: &Settings) -> Result<(), SignalRefusal> {
    let issuer = payload.get("iss").and_then(Value::as_str).ok_or(malformed("`iss` must be a string"))?;
    if issuer != settings.issuer {
        return Err(SignalRefusal {
            code: Code::InvalidIssuer,
            description: "`iss` is not this transmitter's issuer",
        });
    }
    let is_ours = |audience: &Value| audience.as_str() == Some(&settings.audience);
    let ours = match payload.get("aud") {
        Some(Value::Array(many)) if many.iter().all(Value::is_string) => many.iter().any(is_ours),
        Some(one @ Value::String(_)) => is_ours(one),
        None => false,
        Some(_) => return Err(malformed("`aud` must be a string or an array of strings")),
    };
    let description = "`aud` is not the audience configured for this transmitter";
    if ours { Ok(()) } else { Err(SignalRefusal { code: Code::InvalidAudience, description }) }
}

fn check_signature(
    jws: &Jws<'_>,
    algorithm: Algorithm,
    keys: &KeyStore,
    asked: KeysAsked,
    now: Timestamp,
) -> Result<(), Unaccepted> {
    proof::prove(jws, algorithm, keys, asked, now).map_err(|unproven| match unproven {
        Unproven::Ask(wanted) => Unaccepted::Ask(wanted),
        Unproven::NoKeys => Unaccepted::NoKeys,
        Unproven::UnknownKey => invalid_key("no key of the transmitter has this `kid`").into(),
        Unproven::NoKeyForAlgorithm => invalid_key("no key of the transmitter is for this algorithm").into(),
        Unproven::WrongSignature => {
            let description = "the signature was not made with a key of the transmitter";
            SignalRefusal { code: Code::AuthenticationFailed, description }.into()
        }
    })
}

fn claims(
    mut payload: Map<String, Value>,
    settings: &Settings,
    now: Timestamp,
) -> Result<Set, SignalRefusal> {
    let tolerant = settings.tolerant;
    let id = match payload.get("jti") {
        Some(Value::String(id)) if !id.is_empty() => id.clone(),
        _ => return Err(malformed("`jti` must be a non-empty string")),
    };
    let date = |name: &str| payload.get(name).map(|value| time(value, tolerant)).transpose();
    let issued_at = date("iat")?.ok_or(malformed("`iat` is missing"))?;
    let at = date("toe")?.unwrap_or(issued_at);
    let leeway = settings.subject_issuer.issuer.leeway.max(CLOCKS);
    if date("nbf")?.is_some_and(|not_before| not_before > now.plus(leeway)) {
        return Err(malformed("the token is not valid yet"));
    }
    if date("exp")?.is_some_and(|expires_at| now >= expires_at.plus(leeway)) {
        return Err(malformed("the token has expired"));
    }
    // SSF §4.1.2 and §4.1.7: without either, a SET cannot be mistaken for an access token.
    if !tolerant && (payload.contains_key("exp") || payload.contains_key("sub")) {
        return Err(malformed("a Shared Signals SET must not have `exp` or `sub`"));
    }
    let events = match payload.remove("events") {
        Some(Value::Object(events)) => events,
        Some(Value::String(text)) if tolerant => apple::events(&text)?,
        _ => return Err(malformed("`events` must be an object")),
    };
    if events.is_empty() || !events.values().all(Value::is_object) {
        return Err(malformed("`events` must have at least one member, and each must be an object"));
    }
    Ok(Set { subject: payload.remove("sub_id"), id, at, events })
}

/// Parses a `NumericDate`, which may lie arbitrarily far in the future.
pub(super) fn time(value: &Value, tolerant: bool) -> Result<Timestamp, SignalRefusal> {
    let number = value.as_f64().unwrap_or(f64::NAN);
    let number = if tolerant && number >= MILLISECONDS { number / 1000.0 } else { number };
    seconds(number).ok_or(malformed("a time is not a number of seconds since 1970"))
}

const fn invalid_key(description: &'static str) -> SignalRefusal {
    SignalRefusal { code: Code::InvalidKey, description }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signals::ssf::tests::settings;

    const NOW: i64 = 1_767_225_600;

    /// The result for valid claims with one more.
    fn with(name: &str, value: Value, tolerant: bool) -> Result<Set, SignalRefusal> {
        let mut claims = Map::new();
        claims.insert("jti".to_owned(), json!("set-1"));
        claims.insert("iat".to_owned(), json!(NOW));
        claims.insert("events".to_owned(), json!({"https://events.example.com/ended": {}}));
        claims.insert(name.to_owned(), value);
        super::claims(claims, &Settings { tolerant, ..settings() }, Timestamp::from_secs(NOW))
    }

    #[test]
    fn a_token_is_valid_from_its_beginning_until_its_end_give_or_take_five_minutes() {
        for (name, second, tolerant, accepted) in [
            ("nbf", NOW + 300, false, true),
            ("nbf", NOW + 301, false, false),
            ("nbf", NOW + 300, true, true),
            ("nbf", NOW + 301, true, false),
            ("exp", NOW - 299, true, true),
            ("exp", NOW - 300, true, false),
            ("exp", NOW + 300, false, false),
        ] {
            let read = with(name, json!(second), tolerant);
            assert_eq!(read.is_ok(), accepted, "{name} {} tolerant: {tolerant}", second - NOW);
        }
    }

    #[test]
    fn events_are_text_for_a_tolerant_receiver_only() {
        let text = json!({"type": "consent-revoked", "sub": "alice"}).to_string();
        let read = with("events", json!(text), true).unwrap();
        assert_eq!(read.events.len(), 1);
        let refusal = with("events", json!(text), false).unwrap_err();
        assert_eq!(refusal.code, Code::InvalidRequest);
        assert_eq!(refusal.description, "`events` must be an object");
    }
}
