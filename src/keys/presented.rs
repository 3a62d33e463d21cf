//! A public key in the header of a message (RFC 7515 §4.1.3), and its thumbprint (RFC 7638).
//!
//! Such a key proves only who made the message; its thumbprint tells whether that is the right owner.

use aws_lc_rs::digest;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::jwks::{self, UnusableKey};
use super::key::VerificationKey;

/// Members of private and symmetric keys (RFC 7518 §6.2.2, §6.3.2, §6.4).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The public key of a header, with its thumbprint.
pub struct PresentedKey<'j> {
    jwk: &'j Map<String, Value>,
    thumbprint: [u8; 32],
}

impl<'j> PresentedKey<'j> {
    /// Reads the members of a JWK that its thumbprint needs.
    ///
    /// # Errors
    /// When the key is private, symmetric, of an unknown type, or lacks a required member.
    pub fn new(jwk: &'j Map<String, Value>) -> Result<Self, UnusableKey> {
        if PRIVATE.iter().any(|member| jwk.contains_key(*member)) {
            return Err(UnusableKey::Private);
        }
        // In lexicographic order: RFC 7638 §3.2, RFC 8037 appendix A.3.
        let required: &[&'static str] = match jwk.get("kty").and_then(Value::as_str) {
            Some("EC") => &["crv", "kty", "x", "y"],
            Some("OKP") => &["crv", "kty", "x"],
            Some("RSA") => &["e", "kty", "n"],
            Some(_) => return Err(UnusableKey::KeyType),
            None => return Err(UnusableKey::Missing("kty")),
        };
        let mut text = String::with_capacity(512);
        for name in required {
            let value = jwk.get(*name).ok_or(UnusableKey::Missing(name))?;
            let value = value.as_str().ok_or(UnusableKey::WrongType(name))?;
            // Only characters that JSON does not escape, so that each key has exactly one text.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if value.is_empty() || !value.bytes().all(is_plain) {
                return Err(UnusableKey::BadEncoding(name));
            }
            let separator = if text.is_empty() { '{' } else { ',' };
            text.push(separator);
            for part in ["\"", name, "\":\"", value, "\""] {
                text.push_str(part);
            }
        }
        text.push('}');
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Ok(Self { jwk, thumbprint })
    }

    /// The thumbprint: SHA-256 of the key in canonical form (RFC 7638).
    #[must_use]
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// Parses the key for signatures by this algorithm.
    ///
    /// # Errors
    /// When it is not a valid key for the algorithm.
    pub fn for_algorithm(&self, algorithm: Algorithm) -> Result<VerificationKey, UnusableKey> {
        let text = serde_json::to_string(self.jwk)
            .map_err(|unwritable| UnusableKey::Malformed(unwritable.to_string()))?;
        jwks::alone(&text, algorithm)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn thumbprint(jwk: &Value) -> Result<String, UnusableKey> {
        let key = PresentedKey::new(jwk.as_object().unwrap())?;
        Ok(URL_SAFE_NO_PAD.encode(key.thumbprint()))
    }

    #[test]
    fn thumbprints_are_those_of_the_specifications() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        for (jwk, expected) in [
            // RFC 7638 §3.1, with members that do not affect the thumbprint.
            (
                json!({ "kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29" }),
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            ),
            // RFC 9449 §4.1 and §6.1.
            (
                json!({
                    "kty": "EC", "crv": "P-256",
                    "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
                    "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
                }),
                "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
            ),
            // RFC 8037 appendix A.3.
            (
                json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ] {
            assert_eq!(thumbprint(&jwk), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn a_key_with_a_private_part_or_of_another_kind_is_unusable() {
        let good =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        for member in PRIVATE {
            let mut jwk = good.clone();
            jwk[member] = json!("AAAA");
            assert_eq!(thumbprint(&jwk), Err(UnusableKey::Private), "{member}");
        }
        let with = |changes: Value| {
            let mut jwk = good.clone();
            jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            jwk
        };
        for (jwk, expected) in [
            (json!({}), UnusableKey::Missing("kty")),
            (with(json!({ "kty": 7 })), UnusableKey::Missing("kty")),
            (with(json!({ "kty": "oct" })), UnusableKey::KeyType),
            (with(json!({ "kty": "EC" })), UnusableKey::Missing("y")),
            (with(json!({ "kty": "RSA" })), UnusableKey::Missing("e")),
            (with(json!({ "x": 7 })), UnusableKey::WrongType("x")),
            (with(json!({ "x": "" })), UnusableKey::BadEncoding("x")),
            (with(json!({ "x": "a\",\"y\":\"b" })), UnusableKey::BadEncoding("x")),
            (with(json!({ "crv": "Ed 25519" })), UnusableKey::BadEncoding("crv")),
        ] {
            assert_eq!(thumbprint(&jwk), Err(expected), "{jwk}");
        }
    }

    #[test]
    fn a_key_serves_the_algorithms_of_its_kind() {
        let jwk =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let key = PresentedKey::new(jwk.as_object().unwrap()).unwrap();
        assert!(key.for_algorithm(Algorithm::EdDSA).unwrap().fits(Algorithm::EdDSA));
        for other in [Algorithm::ES256, Algorithm::RS256, Algorithm::HS256] {
            assert_eq!(key.for_algorithm(other).unwrap_err(), UnusableKey::Algorithm, "{other:?}");
        }
        for (changes, expected) in [
            (json!({ "use": "enc" }), UnusableKey::Use),
            (json!({ "key_ops": ["sign"] }), UnusableKey::KeyOps),
            (json!({ "alg": "ES256" }), UnusableKey::Algorithm),
            (json!({ "crv": "X25519" }), UnusableKey::Curve),
            (json!({ "x": "AAAA" }), UnusableKey::BadEncoding("x")),
        ] {
            let mut jwk = jwk.clone();
            jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let key = PresentedKey::new(jwk.as_object().unwrap()).unwrap();
            assert_eq!(key.for_algorithm(Algorithm::EdDSA).unwrap_err(), expected, "{changes}");
        }
    }
}
