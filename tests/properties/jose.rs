//! A token's parts are what serde_json makes of them, and nothing that two readers could read differently is accepted.
//!
//! The input is a token, or a header and a payload as two lines of JSON, of which a token is made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::jose::json::{self, JsonError};
use crate::jose::jws::{Jws, JwsError};

/// What must hold.
pub(super) fn check(input: &[u8]) {
    object(input);
    token(input);
    let (header, payload) =
        input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len()));
    let payload = payload.get(1..).unwrap_or_default();
    let token =
        [header, payload, b"signature"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".").into_bytes();
    self::token(&token);
    object(header);
    object(payload);
}

fn object(text: &[u8]) {
    let read = json::object(text);
    let plain = serde_json::from_slice::<Value>(text);
    match (&read, plain) {
        (Ok(members), Ok(Value::Object(plain))) => {
            assert_eq!(*members, plain, "{}", text.escape_ascii());
            assert!(depth(&Value::Object(plain)) <= 32, "deeper than is allowed: {}", text.escape_ascii());
            assert_eq!(colons(text), members_of(members), "a member is lost: {}", text.escape_ascii());
        }
        (Err(JsonError::NoObject), Ok(Value::Object(_))) | (Ok(_), _) => {
            unreachable!("{read:?} for {}", text.escape_ascii())
        }
        (Err(JsonError::Ambiguous), Ok(value)) => {
            let members = value.as_object().map(members_of);
            let is_ambiguous = depth(&value) > 32 || members != Some(colons(text));
            assert!(is_ambiguous, "refused for nothing: {}", text.escape_ascii());
        }
        (Err(_), _) => {}
    }
}

/// The members of all objects in a text, each time they occur: colons outside of strings.
fn colons(text: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

fn members_of(object: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Object(members) => members_of(members),
            Value::Array(values) => values.iter().map(of).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    object.len() + object.values().map(of).sum::<usize>()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn token(token: &[u8]) {
    let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
    let decoded: Option<Vec<Vec<u8>>> =
        parts.iter().map(|part| URL_SAFE_NO_PAD.decode(part).ok()).collect::<Option<_>>();
    match (Jws::parse(token), decoded.as_deref()) {
        (Ok(jws), Some([header, payload, signature])) => {
            let again = [header, payload, signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            assert_eq!(again.as_bytes(), token, "another spelling of a token is accepted");
            assert_eq!(json::object(payload).as_ref(), Ok(&jws.payload));
            assert_eq!(&jws.signature, signature);
            assert_eq!(jws.signing_input, &token[..token.len() - parts[2].len() - 1]);
            let header = json::object(header).unwrap_or_default();
            assert!(!header.contains_key("crit"));
            assert!(header.get("b64").is_none_or(|b64| *b64 == Value::Bool(true)));
            assert_eq!(jws.kid(), header.get("kid").and_then(Value::as_str));
            assert_eq!(
                jws.algorithm().is_some(),
                jws.parameter("alg").and_then(Value::as_str).is_some_and(is_known)
            );
        }
        (Ok(_), _) => unreachable!("no token is accepted: {}", token.escape_ascii()),
        (Err(JwsError::NoJws), Some([header, payload, _])) => {
            let bad = |part: &[u8]| json::object(part) == Err(JsonError::NoObject);
            assert!(bad(header) || bad(payload), "refused for nothing: {}", token.escape_ascii());
        }
        (Err(_), _) => {}
    }
}

fn is_known(algorithm: &str) -> bool {
    let known = ["256", "384", "512"];
    ["EdDSA", "Ed25519"].contains(&algorithm)
        || ["HS", "RS", "PS"]
            .iter()
            .any(|family| algorithm.strip_prefix(family).is_some_and(|size| known.contains(&size)))
        || ["ES256", "ES384"].contains(&algorithm)
}
