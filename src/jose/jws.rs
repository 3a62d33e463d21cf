//! Parses the compact serialization of a signed token (RFC 7515 §3.1). Nothing in it is trusted yet.
//!
//! Until its signature is verified, anybody may have written the content.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::json::{self, JsonError};

/// A token's parts.
pub struct Jws<'t> {
    header: Map<String, Value>,
    /// The claims.
    pub payload: Map<String, Value>,
    /// What the signature covers.
    pub signing_input: &'t [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

/// Why a text is not a token that can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwsError {
    /// It is not a JWS in compact serialization with a JSON object inside.
    NoJws,
    /// It is one that not everybody would read alike, or that asks for what is not understood here.
    Unacceptable,
}

impl std::fmt::Debug for Jws<'_> {
    /// Prints nothing of the token: its parts are the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jws(…)")
    }
}

impl<'t> Jws<'t> {
    /// Takes a token apart.
    ///
    /// Base64 is read strictly in all three parts, spare bits included (RFC 7515 §5.2), so the one string that stands
    /// for a signature is the only one accepted.
    ///
    /// # Errors
    /// [`JwsError::NoJws`] unless there are three parts, base64url without padding, the first two JSON objects;
    /// [`JwsError::Unacceptable`] for a member that occurs twice, a `kid` that is not a string, `crit` (RFC 7515 §4.1.11:
    /// no extension is understood here), and `b64` other than true (RFC 7797 §7).
    pub fn parse(token: &'t [u8]) -> Result<Self, JwsError> {
        let mut parts = token.split(|&byte| byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::NoJws);
        };
        let signing_input = token.get(..header.len() + 1 + payload.len()).ok_or(JwsError::NoJws)?;
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let (header, payload) = (object(&header)?, object(&payload)?);
        let is_extended =
            header.contains_key("crit") || header.get("b64").is_some_and(|b64| *b64 != Value::Bool(true));
        if is_extended || !matches!(header.get("kid"), None | Some(Value::String(_))) {
            return Err(JwsError::Unacceptable);
        }
        Ok(Self { header, payload, signing_input, signature })
    }

    /// A parameter of the header.
    pub(crate) fn parameter(&self, name: &str) -> Option<&Value> {
        self.header.get(name)
    }

    /// `alg`, when it is one that can be known here. RFC 9864 §2.2 gave EdDSA over Ed25519, which is all of EdDSA that is
    /// known here, a second name.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        match self.header.get("alg")?.as_str()? {
            "Ed25519" => Some(Algorithm::EdDSA),
            name => Algorithm::from_str(name).ok(),
        }
    }

    /// `kid`.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// `typ`; absent, it is that of RFC 7519 §5.1. `None` when it is not a string.
    #[must_use]
    pub fn token_type(&self) -> Option<&str> {
        self.header.get("typ").map_or(Some("JWT"), Value::as_str)
    }
}

/// Base64url without padding, and without spare bits.
///
/// # Errors
/// [`JwsError::NoJws`] for anything else.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_not_base64| JwsError::NoJws)
}

fn object(text: &[u8]) -> Result<Map<String, Value>, JwsError> {
    json::object(text).map_err(|error| match error {
        JsonError::NoObject => JwsError::NoJws,
        JsonError::Ambiguous => JwsError::Unacceptable,
    })
}
