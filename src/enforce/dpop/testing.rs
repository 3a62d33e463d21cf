//! Proofs in any shape, made with the keys of [`SIGNERS`].

use aws_lc_rs::signature::KeyPair as _;
use serde_json::{Value, json};

use crate::enforce::testing::{NOW, SIGNERS, Signer, b64, token_of};
use crate::enforce::token::sha256;
use crate::keys::presented::PresentedKey;

impl Signer {
    /// Its public key as a JWK (RFC 7517).
    pub(in crate::enforce) fn jwk(&self) -> Value {
        match self {
            Self::Ecdsa(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = if point.len() == 65 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y) })
            }
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref()) })
            }
            Self::Rsa(pair, _) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let [n, e] = [n, e].map(|number| b64(number.big_endian_without_leading_zero()));
                json!({ "kty": "RSA", "n": n, "e": e })
            }
            Self::Hmac(_) => json!({ "kty": "oct", "k": "AAAA" }),
        }
    }

    /// Its thumbprint (RFC 7638).
    pub(in crate::enforce) fn thumbprint(&self) -> [u8; 32] {
        *PresentedKey::new(self.jwk().as_object().expect("an object")).expect("a public key").thumbprint()
    }
}

pub(in crate::enforce) const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

/// The header of a valid proof for `GET https://api.example/deals/7` with this token, made with the key
/// `es256`.
pub(in crate::enforce) fn header() -> Value {
    json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": SIGNERS.es256.jwk() })
}

pub(in crate::enforce) fn payload(token: &str) -> Value {
    json!({
        "jti": "proof-1", "htm": "GET", "htu": "https://api.example/deals/7", "iat": NOW,
        "ath": b64(&sha256(token.as_bytes())),
    })
}

/// Applies changes; a change to `null` removes the member.
pub(in crate::enforce) fn changed(mut object: Value, changes: Value) -> Value {
    let (members, changes) = (object.as_object_mut().expect("an object"), changes);
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    object
}

/// A proof with these changes to header and payload, signed by `signer`.
pub(in crate::enforce) fn proof_by(signer: &Signer, in_header: Value, in_payload: Value) -> String {
    let (header, payload) = (changed(header(), in_header), changed(payload(TOKEN), in_payload));
    token_of(signer, &header.to_string(), &payload.to_string())
}
