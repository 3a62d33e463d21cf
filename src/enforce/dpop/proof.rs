//! Parses and verifies a DPoP proof (RFC 9449 §4.3).

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, Method};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::uri::{self, UriOrigin};
use super::{ALGORITHMS, ProofFault};
use crate::enforce::claims;
use crate::identity::Key;
use crate::jose::jws::Jws;
use crate::keys::jwks::UnusableKey;
use crate::keys::presented::PresentedKey;
use crate::time::Timestamp;

/// The field that carries a proof.
pub const DPOP: HeaderName = HeaderName::from_static("dpop");

/// Maximum size of a proof in bytes: twice the size of the longest RSA key with its signature.
const MAX_PROOF: usize = 8 * 1024;
/// Maximum length of a `jti` (RFC 9449 §11.1 leaves the limit to the server).
const MAX_JTI: usize = 256;

/// The values that a proof must match.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedProof<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// The origin at which clients reach the gate; `None` if it is unknown, so that no proof matches.
    pub origin: Option<&'a UriOrigin>,
    /// The path of the request, in canonical form.
    pub path: &'a str,
    /// The token sent with it, and the thumbprint of the key that the token is bound to; `None` at a token
    /// endpoint.
    pub token: Option<(&'a [u8], &'a [u8; 32])>,
    /// How far `iat` may differ from `now`, in either direction.
    pub window: Duration,
    /// The current time.
    pub now: Timestamp,
}

/// A key that the sender of the request has proven to hold, provided that the proof was not used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKey {
    /// The thumbprint (RFC 7638).
    pub thumbprint: [u8; 32],
    /// The key by which the proof is remembered, made of thumbprint and `jti`.
    pub replay: Key,
    /// When it was made.
    pub issued_at: Timestamp,
    /// The nonce of the proof.
    pub nonce: Option<Box<str>>,
}

/// The single `DPoP` field.
///
/// # Errors
/// When it is missing or repeated.
pub fn field(headers: &HeaderMap) -> Result<&[u8], ProofFault> {
    let mut fields = headers.get_all(DPOP).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => Ok(field.as_bytes()),
        (None, _) => Err(ProofFault::Absent),
        (Some(_), Some(_)) => Err(ProofFault::Several),
    }
}

/// Checks everything about a proof but its nonce and whether it was used before. The most expensive check
/// comes last.
///
/// # Errors
/// The first fault found.
pub fn judge(field: &[u8], expected: &ExpectedProof<'_>) -> Result<ProvenKey, ProofFault> {
    if field.len() > MAX_PROOF {
        return Err(ProofFault::Malformed);
    }
    let jws = Jws::parse(field).map_err(|_no_jws| ProofFault::Malformed)?;
    if jws.parameter("typ").and_then(Value::as_str) != Some("dpop+jwt") {
        return Err(ProofFault::Type);
    }
    let algorithm = algorithm(&jws).ok_or(ProofFault::Algorithm)?;
    let jwk = jws.parameter("jwk").and_then(Value::as_object).ok_or(ProofFault::Key)?;
    let key = PresentedKey::new(jwk).map_err(unusable)?;
    let claims = ProofClaims::read(&jws.payload)?;
    claims.judge(expected)?;
    if let Some((token, bound)) = expected.token {
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, token));
        match claims.ath {
            None => return Err(ProofFault::Claim),
            Some(ath) if ath != hash => return Err(ProofFault::Token),
            Some(_) if key.thumbprint() != bound => return Err(ProofFault::OtherKey),
            Some(_) => {}
        }
    }
    let verifier = key.for_algorithm(algorithm).map_err(unusable)?;
    if !verifier.verify(algorithm, jws.signing_input, &jws.signature) {
        return Err(ProofFault::Signature);
    }
    Ok(ProvenKey {
        thumbprint: *key.thumbprint(),
        replay: replay_key(key.thumbprint(), claims.jti),
        issued_at: claims.iat,
        nonce: claims.nonce.map(Box::from),
    })
}

/// A configured path in the canonical form in which proofs are compared; `None` if no request can have it.
#[must_use]
pub fn canonical_path(path: &str) -> Option<Cow<'_, str>> {
    uri::canonical(path)
}

/// The algorithm, if it is one of [`ALGORITHMS`]: asymmetric, and not `none`.
fn algorithm(jws: &Jws<'_>) -> Option<Algorithm> {
    let is_listed = |name: &&str| ALGORITHMS.contains(name);
    jws.parameter("alg").and_then(Value::as_str).filter(is_listed).and_then(|_| jws.algorithm())
}

fn unusable(key: UnusableKey) -> ProofFault {
    if key == UnusableKey::Private { ProofFault::PrivateKey } else { ProofFault::Key }
}

/// The key by which a proof is remembered. The thumbprint has a fixed length, so different pairs never give
/// the same input.
fn replay_key(thumbprint: &[u8; 32], jti: &str) -> Key {
    let named = [&thumbprint[..], jti.as_bytes()].concat();
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &named).as_ref());
    Key::from_digest(&hash)
}

/// The claims that are used (RFC 9449 §4.2).
struct ProofClaims<'p> {
    jti: &'p str,
    htm: &'p str,
    htu: &'p str,
    iat: Timestamp,
    ath: Option<&'p str>,
    nonce: Option<&'p str>,
}

impl<'p> ProofClaims<'p> {
    fn read(payload: &'p Map<String, Value>) -> Result<Self, ProofFault> {
        let text = |name| match payload.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(ProofFault::Claim),
        };
        let required = |name| text(name)?.ok_or(ProofFault::Claim);
        let iat = claims::date(payload, "iat").ok().flatten().ok_or(ProofFault::Claim)?;
        let jti = required("jti")?;
        if jti.is_empty() || jti.len() > MAX_JTI {
            return Err(ProofFault::Claim);
        }
        Ok(Self {
            jti,
            htm: required("htm")?,
            htu: required("htu")?,
            iat,
            ath: text("ath")?,
            nonce: text("nonce")?,
        })
    }

    fn judge(&self, expected: &ExpectedProof<'_>) -> Result<(), ProofFault> {
        if self.htm != expected.method.as_str() {
            return Err(ProofFault::Method);
        }
        if !expected.origin.is_some_and(|origin| uri::is_at(self.htu, origin, expected.path)) {
            return Err(ProofFault::Uri);
        }
        let (iat, now) = (self.iat, expected.now);
        if now.since(iat).max(iat.since(now)) > expected.window { Err(ProofFault::Time) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
