//! Each key of a set is judged by itself: alone it is what it is among others; and no private or symmetric key is used.

use jsonwebtoken::Algorithm;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::keys::jwks::{self, KeySetError};

const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::HS256,
];

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let parsed = match jwks::parse(input, ALGORITHMS) {
        Ok(parsed) => parsed,
        Err(error) => return drop(error.to_string()),
    };
    let Ok(Value::Object(mut members)) = serde_json::from_slice::<Value>(input) else {
        unreachable!("no object is a key set: {}", input.escape_ascii())
    };
    let Some(Value::Array(keys)) = members.remove("keys") else {
        unreachable!("a key set without keys: {}", input.escape_ascii())
    };
    assert!(!parsed.keys.is_empty());
    assert_eq!(parsed.keys.len() + parsed.left_out.len(), keys.len());
    assert!(parsed.left_out.windows(2).all(|pair| pair[0].position < pair[1].position));
    let mut usable = parsed.keys.iter();
    for (position, (raw, key)) in raw(input).into_iter().zip(&keys).enumerate() {
        let alone = jwks::parse(format!("{{\"keys\":[{raw}]}}").as_bytes(), ALGORITHMS);
        match parsed.left_out.iter().find(|left_out| left_out.position == position) {
            Some(left_out) => {
                assert!(left_out.kid.as_ref().is_none_or(|kid| kid.chars().count() <= 64));
                assert_eq!(
                    alone.err(),
                    Some(KeySetError::NoUsableKey(1, Some(left_out.why.clone()))),
                    "{raw}"
                );
            }
            None => {
                let kid = usable.next().and_then(|key| key.kid().map(str::to_owned));
                assert_eq!(kid.as_deref(), key.get("kid").and_then(Value::as_str), "{raw}");
                assert!(alone.is_ok_and(|alone| alone.keys.len() == 1), "{raw}");
                assert!(key.get("d").is_none() && key.get("kty") != Some(&Value::from("oct")), "{raw}");
            }
        }
    }
}

fn raw(input: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct KeyTexts<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    serde_json::from_slice::<KeyTexts<'_>>(input)
        .map(|set| set.keys.iter().map(|raw| raw.get().to_owned()).collect())
        .unwrap_or_default()
}
