//! Parses a JWK Set (RFC 7517 §5) into keys: each key is checked by itself, and an unusable one does not affect the
//! others. Pure: takes bytes, and returns keys and reasons.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::value::RawValue;

use super::json::JsonMembers;
use super::key::VerificationKey;
use crate::client::MAX_BODY;

/// Maximum size of a document in bytes.
pub const MAX_BYTES: usize = MAX_BODY;
/// Maximum number of keys in a document, usable or not.
pub const MAX_KEYS: usize = 1000;
/// Allowed sizes of RSA keys. Smaller keys are too weak (RFC 7518 §3.3); larger ones make verification
/// needlessly expensive.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// How much of a `kid` is logged, in characters.
const KID_IN_LOG: usize = 64;

/// The contents of a parsed document.
#[derive(Debug)]
pub struct Parsed {
    /// The usable keys: at least one.
    pub keys: Vec<VerificationKey>,
    /// The unusable keys.
    pub left_out: Vec<LeftOut>,
    /// How soon the issuer wants the document to be fetched again (`spiffe_refresh_hint`).
    pub refresh_hint: Option<Duration>,
}

/// A key that was left out because it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its index in the document, from 0.
    pub position: usize,
    /// Its `kid`, shortened to 64 characters.
    pub kid: Option<String>,
    /// Why it cannot be used.
    pub why: UnusableKey,
}

/// Why a whole document is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySetError {
    /// Larger than [`MAX_BYTES`].
    TooLarge,
    /// Not a JSON object with an array `keys`, or with more than one member `keys`.
    NotASet(String),
    /// More than [`MAX_KEYS`].
    TooManyKeys(usize),
    /// None of this many keys can be used, with the reason for the first one.
    NoUsableKey(usize, Option<UnusableKey>),
}

/// Why one key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnusableKey {
    /// Not a JSON object, or a member appears twice.
    Malformed(String),
    /// A member that the key type needs is absent.
    Missing(&'static str),
    /// A member has the wrong JSON type.
    WrongType(&'static str),
    /// A member is not base64url without padding, or has the wrong length.
    BadEncoding(&'static str),
    /// `kty` is not `RSA`, `EC` or `OKP`.
    KeyType,
    /// `crv` is not `P-256`, `P-384` or `Ed25519`, or does not belong to this `kty`.
    Curve,
    /// `use` is not `sig`.
    Use,
    /// `use` is not `jwt-svid`.
    NotForSvids,
    /// `key_ops` does not contain `verify`.
    KeyOps,
    /// `alg` does not fit the key, or the issuer is not allowed any algorithm that does.
    Algorithm,
    /// A symmetric key, which is no longer a secret once it is published.
    Symmetric,
    /// The document contains the private part, so anyone can sign with it.
    Private,
    /// An RSA modulus of this many bits.
    RsaSize(usize),
    /// The numbers do not form a key: a point off its curve, an even exponent.
    NotAKey,
}

/// Parses `document` and returns the keys that can verify signatures under `algorithms`.
///
/// # Errors
/// When the document is too large, is not a JWK Set, or has no usable key.
pub fn parse(document: &[u8], algorithms: &[Algorithm]) -> Result<Parsed, KeySetError> {
    parse_for(document, algorithms, false)
}

/// As [`parse`]. With `for_svids`, the document is the bundle of a SPIFFE trust domain: only keys of the use
/// `jwt-svid` with a `kid` count (SPIFFE JWT-SVID §6).
///
/// # Errors
/// As [`parse`].
pub fn parse_for(document: &[u8], algorithms: &[Algorithm], for_svids: bool) -> Result<Parsed, KeySetError> {
    if document.len() > MAX_BYTES {
        return Err(KeySetError::TooLarge);
    }
    let not_a_set = |error: serde_json::Error| KeySetError::NotASet(error.to_string());
    let members: JsonMembers<'_> = serde_json::from_slice(document).map_err(not_a_set)?;
    let listed: Option<Vec<&RawValue>> = members.get("keys").map_err(not_a_set)?;
    let listed = listed.ok_or_else(|| KeySetError::NotASet("the member `keys` is missing".to_owned()))?;
    if listed.len() > MAX_KEYS {
        return Err(KeySetError::TooManyKeys(listed.len()));
    }
    let mut parsed = Parsed {
        keys: Vec::with_capacity(listed.len()),
        left_out: Vec::new(),
        // An unusable hint is no reason to refuse the keys.
        refresh_hint: members.get("spiffe_refresh_hint").ok().flatten().map(Duration::from_secs),
    };
    for (position, raw) in listed.iter().enumerate() {
        match key(raw, algorithms, for_svids) {
            Ok(key) => parsed.keys.push(key),
            Err((kid, why)) => parsed.left_out.push(LeftOut { position, kid, why }),
        }
    }
    if parsed.keys.is_empty() {
        return Err(KeySetError::NoUsableKey(
            listed.len(),
            parsed.left_out.into_iter().next().map(|first| first.why),
        ));
    }
    Ok(parsed)
}

fn key(
    raw: &RawValue,
    algorithms: &[Algorithm],
    for_svids: bool,
) -> Result<VerificationKey, (Option<String>, UnusableKey)> {
    let jwk: JsonMembers<'_> =
        serde_json::from_str(raw.get()).map_err(|error| (None, UnusableKey::Malformed(error.to_string())))?;
    let kid = text(&jwk, "kid").map_err(|why| (None, why))?;
    usable(&jwk, kid.as_deref(), algorithms, for_svids)
        .map_err(|why| (kid.map(|kid| kid.chars().take(KID_IN_LOG).collect()), why))
}

/// Parses a single JWK for signatures by this algorithm.
pub(super) fn alone(jwk: &str, algorithm: Algorithm) -> Result<VerificationKey, UnusableKey> {
    let members: JsonMembers<'_> =
        serde_json::from_str(jwk).map_err(|error| UnusableKey::Malformed(error.to_string()))?;
    usable(&members, None, &[algorithm], false)
}

fn usable(
    jwk: &JsonMembers<'_>,
    kid: Option<&str>,
    algorithms: &[Algorithm],
    for_svids: bool,
) -> Result<VerificationKey, UnusableKey> {
    let kind = text(jwk, "kty")?.ok_or(UnusableKey::Missing("kty"))?;
    if kind == "oct" {
        return Err(UnusableKey::Symmetric);
    }
    check_purpose(jwk, for_svids)?;
    if for_svids && kid.is_none() {
        return Err(UnusableKey::Missing("kid"));
    }
    let (family, encoded) = match kind.as_str() {
        "RSA" => (AlgorithmFamily::Rsa.algorithms(), rsa(jwk)?),
        "EC" => ec(jwk)?,
        "OKP" => (AlgorithmFamily::Ed.algorithms(), ed25519(jwk)?),
        _ => return Err(UnusableKey::KeyType),
    };
    if jwk.has("d") {
        return Err(UnusableKey::Private);
    }
    let only = text(jwk, "alg")?;
    let fits = |algorithm: &&Algorithm| {
        family.contains(algorithm) && only.as_deref().is_none_or(|only| names(only, **algorithm))
    };
    let fitting: Vec<Algorithm> = algorithms.iter().filter(fits).copied().collect();
    if fitting.is_empty() {
        return Err(UnusableKey::Algorithm);
    }
    VerificationKey::public(kid, &fitting, &encoded).ok_or(UnusableKey::NotAKey)
}

/// Whether a JWK's `alg` means `algorithm`. RFC 9864 §2.2 gave EdDSA over Ed25519 a second name.
fn names(alg: &str, algorithm: Algorithm) -> bool {
    alg.parse() == Ok(algorithm) || (alg == "Ed25519" && algorithm == Algorithm::EdDSA)
}

/// Checks that the key is published for verifying signatures (RFC 7517 §4.2, §4.3).
fn check_purpose(jwk: &JsonMembers<'_>, for_svids: bool) -> Result<(), UnusableKey> {
    match text(jwk, "use")?.as_deref() {
        Some("jwt-svid") if for_svids => {}
        Some(_) | None if for_svids => return Err(UnusableKey::NotForSvids),
        Some("sig") | None => {}
        Some(_) => return Err(UnusableKey::Use),
    }
    let operations: Option<Vec<String>> =
        jwk.get("key_ops").map_err(|_wrong_type| UnusableKey::WrongType("key_ops"))?;
    match operations {
        Some(operations) if !operations.iter().any(|operation| operation == "verify") => {
            Err(UnusableKey::KeyOps)
        }
        _ => Ok(()),
    }
}

/// Encodes an RSA key (RFC 7518 §6.3.1) as a `SubjectPublicKeyInfo`.
fn rsa(jwk: &JsonMembers<'_>) -> Result<Vec<u8>, UnusableKey> {
    let (modulus, exponent) = (binary(jwk, "n")?, binary(jwk, "e")?);
    let (modulus, exponent) = (without_leading_zeros(&modulus), without_leading_zeros(&exponent));
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(UnusableKey::RsaSize(bits));
    }
    let components = RsaPublicKeyComponents { n: modulus, e: exponent };
    Ok(components.as_der().map_err(|_rejected| UnusableKey::NotAKey)?.as_ref().to_vec())
}

/// Strips leading zeros: some issuers publish a sign byte, which RFC 7518 §6.3.1.1 warns of; the number is
/// the same.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Encodes an EC key (RFC 7518 §6.2.1) as an uncompressed point; both coordinates have the full length of
/// their curve.
fn ec(jwk: &JsonMembers<'_>) -> Result<(&'static [Algorithm], Vec<u8>), UnusableKey> {
    let (algorithms, length): (&[Algorithm], usize) = match text(jwk, "crv")?.as_deref() {
        None => return Err(UnusableKey::Missing("crv")),
        Some("P-256") => (&[Algorithm::ES256], 32),
        Some("P-384") => (&[Algorithm::ES384], 48),
        Some(_) => return Err(UnusableKey::Curve),
    };
    let mut point = vec![0x04];
    for coordinate in ["x", "y"] {
        point.extend(binary_of_length(jwk, coordinate, length)?);
    }
    Ok((algorithms, point))
}

/// The public key of an Ed25519 JWK (RFC 8037 §2).
fn ed25519(jwk: &JsonMembers<'_>) -> Result<Vec<u8>, UnusableKey> {
    match text(jwk, "crv")?.as_deref() {
        None => Err(UnusableKey::Missing("crv")),
        Some("Ed25519") => binary_of_length(jwk, "x", 32),
        Some(_) => Err(UnusableKey::Curve),
    }
}

fn text(jwk: &JsonMembers<'_>, name: &'static str) -> Result<Option<String>, UnusableKey> {
    jwk.get(name).map_err(|_wrong_type| UnusableKey::WrongType(name))
}

fn binary(jwk: &JsonMembers<'_>, name: &'static str) -> Result<Vec<u8>, UnusableKey> {
    let encoded = text(jwk, name)?.ok_or(UnusableKey::Missing(name))?;
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_invalid| UnusableKey::BadEncoding(name))
}

fn binary_of_length(
    jwk: &JsonMembers<'_>,
    name: &'static str,
    length: usize,
) -> Result<Vec<u8>, UnusableKey> {
    let bytes = binary(jwk, name)?;
    if bytes.len() == length { Ok(bytes) } else { Err(UnusableKey::BadEncoding(name)) }
}

impl UnusableKey {
    /// Whether issuers publish such keys for good reasons (other purposes, other algorithms), so that no
    /// warning is logged.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        use UnusableKey::{Algorithm, Curve, KeyOps, KeyType, NotForSvids, Use};
        matches!(self, KeyType | Curve | Use | NotForSvids | KeyOps | Algorithm)
    }
}

impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "not a usable JSON object: {error}"),
            Self::Missing(name) => write!(f, "`{name}` is missing"),
            Self::WrongType(name) => write!(f, "`{name}` has the wrong type"),
            Self::BadEncoding(name) => write!(f, "`{name}` is not base64url of the right length"),
            Self::KeyType => f.write_str("its `kty` is not supported"),
            Self::Curve => f.write_str("its `crv` is not supported"),
            Self::Use => f.write_str("its `use` is not `sig`"),
            Self::NotForSvids => f.write_str("its `use` is not `jwt-svid`"),
            Self::KeyOps => f.write_str("its `key_ops` do not include `verify`"),
            Self::Algorithm => f.write_str("it does not fit any configured algorithm of the issuer"),
            Self::Symmetric => {
                f.write_str("it is a symmetric key, and a published symmetric key proves nothing")
            }
            Self::Private => f.write_str("its private part is published; replace the key"),
            Self::RsaSize(bits) => {
                write!(
                    f,
                    "its RSA modulus has {bits} bits; {} to {} are accepted",
                    RSA_BITS.start(),
                    RSA_BITS.end()
                )
            }
            Self::NotAKey => f.write_str("its parameters are not a valid key"),
        }
    }
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the key set is larger than 1 MiB"),
            Self::NotASet(error) => write!(f, "not a JWK Set: {error}"),
            Self::TooManyKeys(count) => {
                write!(f, "the key set has {count} keys; at most {MAX_KEYS} are accepted")
            }
            Self::NoUsableKey(count, None) => write!(f, "no usable key (of {count})"),
            Self::NoUsableKey(count, Some(why)) => {
                write!(f, "no usable key (of {count}); the first: {why}")
            }
        }
    }
}

impl std::error::Error for KeySetError {}

#[cfg(test)]
mod tests;
