//! The issuer of the demo: one signing key that never leaves this process, its public half as a key set, one token.

use std::io;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::time::Timestamp;

/// The issuer's name, as in `iss`.
pub(super) const NAME: &str = "https://issuer.demo/";
/// Whom its tokens are for, as in `aud`.
pub(super) const AUDIENCE: &str = "https://api.demo/";
/// The one scope its token carries.
pub(super) const SCOPE: &str = "read:deals";

const KEY_ID: &str = "demo";
/// A working day.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// An issuer with an ES256 key made for this process.
pub(super) struct Issuer(EcdsaKeyPair);

impl Issuer {
    pub(super) fn generate() -> io::Result<Self> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Self).map_err(failed)
    }

    /// The public key as a JWK Set (RFC 7517 §5, RFC 7518 §6.2.1).
    pub(super) fn jwks(&self) -> String {
        // SEC 1 §2.3.3: 0x04, then both coordinates.
        let coordinates = self.0.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        let key =
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": KEY_ID, "alg": "ES256", "use": "sig"});
        format!("{:#}\n", json!({"keys": [key]}))
    }

    /// A token (RFC 9068) that is good from `now` on.
    pub(super) fn token(&self, now: Timestamp) -> io::Result<String> {
        let header = json!({"typ": "at+jwt", "alg": "ES256", "kid": KEY_ID});
        let claims = json!({
            "iss": NAME,
            "aud": AUDIENCE,
            "sub": "ada",
            "client_id": "demo-client",
            "scope": SCOPE,
            "roles": ["sales"],
            "tenant": "demo",
            "iat": now.as_secs(),
            "exp": now.plus(TOKEN_LIFETIME).as_secs(),
            "jti": secret()?,
        });
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).map_err(failed)?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A value that cannot be guessed.
pub(super) fn secret() -> io::Result<String> {
    let mut random = [0; 24];
    rand::fill(&mut random).map_err(failed)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

fn failed(_unspecified: Unspecified) -> io::Error {
    io::Error::other("the cryptographic library failed")
}
