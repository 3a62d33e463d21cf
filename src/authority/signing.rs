//! A token signing key: creates, stores and publishes it as a JWK, and signs with it. Knows nothing about rotation.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// A private key with its public half as it is published.
pub(super) struct SigningKey {
    pair: SigningPair,
    kid: Box<str>,
    jwk: Value,
    /// The header of every token it signs, encoded.
    header: Box<str>,
}

enum SigningPair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

/// The algorithms a key can be made for, and the names they are stored by.
const NAMES: [(Algorithm, &str); 3] =
    [(Algorithm::ES256, "ES256"), (Algorithm::RS256, "RS256"), (Algorithm::EdDSA, "EdDSA")];

/// The name of an algorithm, as in `alg`.
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == algorithm).map_or("", |(_, name)| name)
}

/// The algorithm of a name.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
}

impl SigningKey {
    /// A new key's private half, in PKCS #8. Making one for RS256 takes a good part of a second.
    pub(super) fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let der = match algorithm {
            Algorithm::RS256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                der.as_ref().to_vec()
            }
            Algorithm::EdDSA => Ed25519KeyPair::generate()?.to_pkcs8()?.as_ref().to_vec(),
            _ => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?.to_pkcs8v1()?.as_ref().to_vec(),
        };
        Ok(Zeroizing::new(der))
    }

    /// The key with this private half; `None` when it is not a key for the algorithm.
    pub(super) fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Option<Self> {
        let (pair, mut jwk) = match algorithm {
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
                let jwk = ec(pair.public_key().as_ref());
                (SigningPair::Es256(pair), jwk)
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
                let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                (SigningPair::EdDsa(pair), json!({ "crv": "Ed25519", "kty": "OKP", "x": x }))
            }
            Algorithm::RS256 => {
                let pair = RsaKeyPair::from_pkcs8(der).ok()?;
                let [e, n] = [pair.public_key().exponent(), pair.public_key().modulus()]
                    .map(|number| URL_SAFE_NO_PAD.encode(number.big_endian_without_leading_zero()));
                (SigningPair::Rs256(pair), json!({ "e": e, "kty": "RSA", "n": n }))
            }
            _ => return None,
        };
        let kid = thumbprint(&jwk);
        let header = json!({ "typ": "at+jwt", "alg": name(algorithm), "kid": kid }).to_string();
        let members = jwk.as_object_mut()?;
        for (member, value) in [("kid", &*kid), ("alg", name(algorithm)), ("use", "sig")] {
            members.insert(member.to_owned(), value.into());
        }
        Some(Self { pair, jwk, header: URL_SAFE_NO_PAD.encode(header).into(), kid: kid.into() })
    }

    /// The RFC 7638 thumbprint of its public half.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// What it signs with.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self.pair {
            SigningPair::Es256(_) => Algorithm::ES256,
            SigningPair::EdDsa(_) => Algorithm::EdDSA,
            SigningPair::Rs256(_) => Algorithm::RS256,
        }
    }

    /// Its public half (RFC 7517).
    pub(super) fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Whether a signature takes so long that nothing else should wait for it: RSA takes thirty times what the others
    /// do.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self.pair, SigningPair::Rs256(_))
    }

    /// A token with these claims (RFC 7515 §3.1, `typ` of RFC 9068 §2.1).
    pub(super) fn token(&self, claims: &str) -> Result<String, Unspecified> {
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 360);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            SigningPair::Es256(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
            SigningPair::EdDsa(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
            SigningPair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    /// Never prints the private half.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// RFC 7518 §6.2.1. The point is 0x04, then both coordinates (SEC 1 §2.3.3).
fn ec(point: &[u8]) -> Value {
    let coordinates = point.get(1..).unwrap_or_default();
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
    json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y })
}

/// RFC 7638 §3: SHA-256 of the required members, in the order of their names and without white space, which is how
/// `serde_json` writes a map.
fn thumbprint(required: &Value) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, required.to_string().as_bytes()))
}

/// A `jti`: 128 random bits.
pub(super) fn token_id() -> Result<String, Unspecified> {
    let mut random = [0; 16];
    rand::fill(&mut random)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::jws::Jws;
    use crate::keys::jwks;
    use crate::keys::set::KeySet;

    #[test]
    fn what_a_key_signs_its_published_half_proves() {
        for (algorithm, name) in NAMES {
            let der = SigningKey::generate(algorithm).unwrap();
            let key = SigningKey::from_pkcs8(algorithm, &der).unwrap();
            assert_eq!(SigningKey::from_pkcs8(algorithm, &der).unwrap().kid(), key.kid());
            assert_eq!(
                (key.algorithm(), key.is_slow()),
                (algorithm, algorithm == Algorithm::RS256),
                "{name}"
            );
            let token = key.token(r#"{"sub":"a"}"#).unwrap();
            let jws = Jws::parse(token.as_bytes()).unwrap();
            assert_eq!((jws.algorithm(), jws.kid()), (Some(algorithm), Some(key.kid())), "{name}");
            assert_eq!(jws.token_type(), Some("at+jwt"));
            let document = json!({ "keys": [key.jwk()] }).to_string();
            let set = KeySet::new(jwks::parse(document.as_bytes(), &[algorithm]).unwrap().keys);
            let mut candidates = set.candidates(Some(key.kid()), algorithm);
            assert!(candidates.any(|key| key.verify(algorithm, jws.signing_input, &jws.signature)), "{name}");
            assert_eq!(key.jwk()["use"], "sig");
        }
        let es256 = SigningKey::generate(Algorithm::ES256).unwrap();
        assert!(SigningKey::from_pkcs8(Algorithm::EdDSA, &es256).is_none());
        assert!(SigningKey::from_pkcs8(Algorithm::RS256, b"").is_none());
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638_section_3_1() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = json!({ "e": "AQAB", "kty": "RSA", "n": n });
        assert_eq!(thumbprint(&jwk), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
