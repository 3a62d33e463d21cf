//! The parts common to signed tokens of all senders: form, type, algorithm, parties, signature, times and id
//! (RFC 7519, RFC 8725).

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::proof::{self, Unproven};
use super::ssf::KeysAsked;
use crate::events::parse::seconds;
use crate::jose::jws::{Jws, JwsError};
use crate::keys::store::{KeyStore, WantedKey};
use crate::time::Timestamp;

/// How far a sender's clock may be ahead. It is generous because a rejected signal is not sent again and would
/// be lost. "Usually no more than a few minutes" (RFC 7519 §4.1.4, §4.1.5).
pub(super) const CLOCKS: Duration = Duration::from_secs(300);

/// The requirements on a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedToken<'a> {
    /// The accepted types, compared without case; a token without a type counts as `JWT`.
    pub(super) types: &'a [&'static str],
    /// The required `iss`.
    pub(super) issuer: &'a str,
    /// The accepted audiences; `aud` must contain one of them.
    pub(super) audiences: &'a [String],
    /// The accepted signature algorithms.
    pub(super) algorithms: &'a [Algorithm],
    /// How long after `exp` it is still accepted.
    pub(super) grace: Duration,
}

/// A token that meets the requirements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SenderToken {
    /// All claims.
    pub(super) claims: Map<String, Value>,
    /// `jti`.
    pub(super) id: String,
    /// `iat`.
    pub(super) issued_at: Timestamp,
}

/// Why a token is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// It is invalid, and will be however often it is sent; contains nothing from the token.
    Refused(&'static str),
    /// Newer keys may verify it; the caller awaits [`KeyStore::ask`] and tries again with [`KeysAsked::Keys`].
    Ask(WantedKey),
    /// The sender's keys were never loaded, or have not been confirmed for too long.
    NoKeys,
}

impl From<&'static str> for TokenFault {
    fn from(why: &'static str) -> Self {
        Self::Refused(why)
    }
}

impl From<Unproven> for TokenFault {
    fn from(unproven: Unproven) -> Self {
        match unproven {
            Unproven::Ask(wanted) => Self::Ask(wanted),
            Unproven::NoKeys => Self::NoKeys,
            Unproven::UnknownKey => Self::Refused("no key of the sender has this `kid`"),
            Unproven::NoKeyForAlgorithm => Self::Refused("no key of the sender is for this `alg`"),
            Unproven::WrongSignature => Self::Refused("the signature was not made with a key of the sender"),
        }
    }
}

/// Verifies a token. The cheapest checks come first; the signature is checked only if the parties match.
pub(super) fn read(
    token: &[u8],
    expected: &ExpectedToken<'_>,
    keys: &KeyStore,
    asked: KeysAsked,
    now: Timestamp,
) -> Result<SenderToken, TokenFault> {
    let jws = Jws::parse(token).map_err(|error| match error {
        JwsError::NoJws => "the token is not a signed JWT in compact serialization",
        JwsError::Unacceptable => "the token is ambiguous or requires an unsupported extension",
    })?;
    let typ = jws.token_type().unwrap_or_default();
    if !expected.types.iter().any(|known| known.eq_ignore_ascii_case(typ)) {
        return Err("`typ` is not accepted here".into());
    }
    let algorithm = jws.algorithm().filter(|algorithm| expected.algorithms.contains(algorithm));
    let algorithm = algorithm.ok_or("`alg` is not one of the accepted algorithms")?;
    check_parties(&jws.payload, expected)?;
    let (id, issued_at) = check_times(&jws.payload, expected, now)?;
    proof::prove(&jws, algorithm, keys, asked, now)?;
    Ok(SenderToken { claims: jws.payload, id, issued_at })
}

fn check_parties(claims: &Map<String, Value>, expected: &ExpectedToken<'_>) -> Result<(), &'static str> {
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return Err("`iss` is not the issuer configured for this sender");
    }
    let is_ours =
        |audience: &Value| expected.audiences.iter().any(|known| audience.as_str() == Some(known.as_str()));
    let ours = match claims.get("aud") {
        Some(Value::Array(many)) if many.iter().all(Value::is_string) => many.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    };
    if ours { Ok(()) } else { Err("`aud` has no audience configured for this sender") }
}

/// Returns `jti` and `iat` of a token that is valid now.
fn check_times(
    claims: &Map<String, Value>,
    expected: &ExpectedToken<'_>,
    now: Timestamp,
) -> Result<(String, Timestamp), &'static str> {
    let id = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty());
    let id = id.ok_or("`jti` must be a non-empty string")?;
    let date = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().and_then(seconds).map(Some).ok_or("a time is not a number of seconds"),
    };
    let issued_at = date("iat")?.ok_or("`iat` is missing")?;
    let expires_at = date("exp")?.ok_or("`exp` is missing")?;
    if now >= expires_at.plus(expected.grace) {
        return Err("the token has expired");
    }
    let earliest = now.plus(CLOCKS);
    if issued_at > earliest || date("nbf")?.is_some_and(|not_before| not_before > earliest) {
        return Err("the token is not valid yet");
    }
    Ok((id.to_owned(), issued_at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_767_225_600;

    fn judge(name: &str, value: Value, grace: u64) -> Result<(String, Timestamp), &'static str> {
        let mut claims = Map::new();
        claims.insert("jti".to_owned(), json!("id-1"));
        claims.insert("iat".to_owned(), json!(NOW - 1));
        claims.insert("exp".to_owned(), json!(NOW + 1));
        claims.insert(name.to_owned(), value);
        let grace = Duration::from_secs(grace);
        let expected = ExpectedToken { types: &[], issuer: "", audiences: &[], algorithms: &[], grace };
        check_times(&claims, &expected, Timestamp::from_secs(NOW))
    }

    #[test]
    fn a_token_is_valid_from_five_minutes_before_its_times_until_its_end_and_the_grace() {
        let (ahead, over) = ("the token is not valid yet", "the token has expired");
        for (name, second, grace, fault) in [
            ("iat", NOW + 300, 0, None),
            ("iat", NOW + 301, 0, Some(ahead)),
            ("nbf", NOW + 300, 0, None),
            ("nbf", NOW + 301, 0, Some(ahead)),
            ("exp", NOW + 1, 0, None),
            ("exp", NOW, 0, Some(over)),
            ("exp", NOW - 29, 30, None),
            ("exp", NOW - 30, 30, Some(over)),
            ("exp", NOW - 299, 300, None),
            ("exp", NOW - 300, 300, Some(over)),
        ] {
            let judged = judge(name, json!(second), grace);
            assert_eq!(judged.err(), fault, "{name} {} {grace}", second - NOW);
        }
        let (id, issued_at) = judge("nbf", json!(NOW), 0).unwrap();
        assert_eq!((id.as_str(), issued_at), ("id-1", Timestamp::from_secs(NOW - 1)));
    }

    #[test]
    fn one_of_the_audiences_must_be_named() {
        let audiences = ["a".to_owned(), "b".to_owned()];
        let expected = ExpectedToken {
            types: &[],
            issuer: "https://idp.example.com/",
            audiences: &audiences,
            algorithms: &[],
            grace: Duration::ZERO,
        };
        for (audience, is_ours) in [
            (json!("a"), true),
            (json!("b"), true),
            (json!("c"), false),
            (json!(["c", "b"]), true),
            (json!(["c"]), false),
            (json!([]), false),
            (json!(["a", 1]), false),
            (json!({"a": "b"}), false),
            (Value::Null, false),
        ] {
            let mut claims = Map::new();
            claims.insert("iss".to_owned(), json!("https://idp.example.com/"));
            claims.insert("aud".to_owned(), audience.clone());
            assert_eq!(check_parties(&claims, &expected).is_ok(), is_ours, "{audience}");
        }
    }
}
