//! A JWK Set (RFC 7517 §5) into keys: each key is judged by itself, and one that cannot be used does not spoil
//! the rest. Pure: bytes in, keys and reasons out.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::value::RawValue;

use super::json::Members;
use super::key::VerificationKey;
use crate::client::MAX_BODY;

/// The largest document, in bytes.
pub const MAX_BYTES: usize = MAX_BODY;
/// The most keys in a document, usable or not.
pub const MAX_KEYS: usize = 1000;
/// RSA keys below are too weak (RFC 7518 §3.3); keys above would make one verification needlessly dear.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// How much of a `kid` is worth a place in the log, in characters.
const KID_IN_LOG: usize = 64;

/// What a document holds.
#[derive(Debug)]
pub struct Parsed {
    /// The usable keys: at least one.
    pub keys: Vec<VerificationKey>,
    /// The others.
    pub left_out: Vec<LeftOut>,
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its place in the document, from 0.
    pub position: usize,
    /// Its `kid`, shortened to 64 characters.
    pub kid: Option<String>,
    /// Why it cannot be used.
    pub why: Unusable,
}

/// Why a document is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Larger than [`MAX_BYTES`].
    TooLarge,
    /// Not a JSON object with an array `keys`, or with an ambiguous one.
    NotASet(String),
    /// More than [`MAX_KEYS`].
    TooManyKeys(usize),
    /// No key of so many can be used, and why the first cannot.
    NoUsableKey(usize, Option<Unusable>),
}

/// Why one key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// Not a JSON object, or a member appears twice.
    Malformed(String),
    /// A member that the key type needs is absent.
    Missing(&'static str),
    /// A member has the wrong JSON type.
    WrongType(&'static str),
    /// A member is not base64url without padding, or has the wrong length.
    BadEncoding(&'static str),
    /// `kty` is none of `RSA`, `EC`, `OKP`.
    KeyType,
    /// `crv` is none of `P-256`, `P-384`, `Ed25519`, or not one of this `kty`.
    Curve,
    /// `use` is not `sig`.
    Use,
    /// `key_ops` does not contain `verify`.
    KeyOps,
    /// `alg` does not fit the key, or the issuer may use none of the algorithms that do.
    Algorithm,
    /// A symmetric key, which is no key at all once it is published.
    Symmetric,
    /// The private part is in the document, so that anybody can sign with it.
    Private,
    /// An RSA modulus of so many bits.
    RsaSize(usize),
    /// The numbers are not a key: a point off its curve, an even exponent.
    NotAKey,
}

/// The keys of `document` that can prove signatures under `algorithms`.
///
/// # Errors
/// When the document is too large, is no JWK Set, or has no usable key.
pub fn parse(document: &[u8], algorithms: &[Algorithm]) -> Result<Parsed, Error> {
    if document.len() > MAX_BYTES {
        return Err(Error::TooLarge);
    }
    let not_a_set = |error: serde_json::Error| Error::NotASet(error.to_string());
    let members: Members<'_> = serde_json::from_slice(document).map_err(not_a_set)?;
    let listed: Option<Vec<&RawValue>> = members.get("keys").map_err(not_a_set)?;
    let listed = listed.ok_or_else(|| Error::NotASet("there is no member `keys`".to_owned()))?;
    if listed.len() > MAX_KEYS {
        return Err(Error::TooManyKeys(listed.len()));
    }
    let mut parsed = Parsed { keys: Vec::with_capacity(listed.len()), left_out: Vec::new() };
    for (position, raw) in listed.iter().enumerate() {
        match key(raw, algorithms) {
            Ok(key) => parsed.keys.push(key),
            Err((kid, why)) => parsed.left_out.push(LeftOut { position, kid, why }),
        }
    }
    if parsed.keys.is_empty() {
        return Err(Error::NoUsableKey(
            listed.len(),
            parsed.left_out.into_iter().next().map(|first| first.why),
        ));
    }
    Ok(parsed)
}

fn key(raw: &RawValue, algorithms: &[Algorithm]) -> Result<VerificationKey, (Option<String>, Unusable)> {
    let jwk: Members<'_> =
        serde_json::from_str(raw.get()).map_err(|error| (None, Unusable::Malformed(error.to_string())))?;
    let kid = text(&jwk, "kid").map_err(|why| (None, why))?;
    usable(&jwk, kid.as_deref(), algorithms)
        .map_err(|why| (kid.map(|kid| kid.chars().take(KID_IN_LOG).collect()), why))
}

fn usable(
    jwk: &Members<'_>,
    kid: Option<&str>,
    algorithms: &[Algorithm],
) -> Result<VerificationKey, Unusable> {
    let kind = text(jwk, "kty")?.ok_or(Unusable::Missing("kty"))?;
    if kind == "oct" {
        return Err(Unusable::Symmetric);
    }
    check_purpose(jwk)?;
    let (family, encoded) = match kind.as_str() {
        "RSA" => (AlgorithmFamily::Rsa.algorithms(), rsa(jwk)?),
        "EC" => ec(jwk)?,
        "OKP" => (AlgorithmFamily::Ed.algorithms(), ed25519(jwk)?),
        _ => return Err(Unusable::KeyType),
    };
    if jwk.has("d") {
        return Err(Unusable::Private);
    }
    let only = text(jwk, "alg")?;
    let fits = |algorithm: &&Algorithm| {
        family.contains(algorithm) && only.as_deref().is_none_or(|only| names(only, **algorithm))
    };
    let fitting: Vec<Algorithm> = algorithms.iter().filter(fits).copied().collect();
    if fitting.is_empty() {
        return Err(Unusable::Algorithm);
    }
    VerificationKey::public(kid, &fitting, &encoded).ok_or(Unusable::NotAKey)
}

/// Whether a JWK's `alg` means `algorithm`. RFC 9864 §2.2 gave EdDSA over Ed25519 a second name.
fn names(alg: &str, algorithm: Algorithm) -> bool {
    alg.parse() == Ok(algorithm) || (alg == "Ed25519" && algorithm == Algorithm::EdDSA)
}

/// RFC 7517 §4.2 and §4.3: what a key is published for binds us.
fn check_purpose(jwk: &Members<'_>) -> Result<(), Unusable> {
    if text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(Unusable::Use);
    }
    let operations: Option<Vec<String>> =
        jwk.get("key_ops").map_err(|_wrong_type| Unusable::WrongType("key_ops"))?;
    match operations {
        Some(operations) if !operations.iter().any(|operation| operation == "verify") => {
            Err(Unusable::KeyOps)
        }
        _ => Ok(()),
    }
}

/// RFC 7518 §6.3.1, as a `SubjectPublicKeyInfo`.
fn rsa(jwk: &Members<'_>) -> Result<Vec<u8>, Unusable> {
    let (modulus, exponent) = (binary(jwk, "n")?, binary(jwk, "e")?);
    let (modulus, exponent) = (without_leading_zeros(&modulus), without_leading_zeros(&exponent));
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(Unusable::RsaSize(bits));
    }
    let components = RsaPublicKeyComponents { n: modulus, e: exponent };
    Ok(components.as_der().map_err(|_rejected| Unusable::NotAKey)?.as_ref().to_vec())
}

/// Some issuers publish a sign byte, which RFC 7518 §6.3.1.1 warns of; the number is the same.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// RFC 7518 §6.2.1, as an uncompressed point; both coordinates have the full length of their curve.
fn ec(jwk: &Members<'_>) -> Result<(&'static [Algorithm], Vec<u8>), Unusable> {
    let (algorithms, length): (&[Algorithm], usize) = match text(jwk, "crv")?.as_deref() {
        None => return Err(Unusable::Missing("crv")),
        Some("P-256") => (&[Algorithm::ES256], 32),
        Some("P-384") => (&[Algorithm::ES384], 48),
        Some(_) => return Err(Unusable::Curve),
    };
    let mut point = vec![0x04];
    for coordinate in ["x", "y"] {
        point.extend(binary_of_length(jwk, coordinate, length)?);
    }
    Ok((algorithms, point))
}

/// RFC 8037 §2.
fn ed25519(jwk: &Members<'_>) -> Result<Vec<u8>, Unusable> {
    match text(jwk, "crv")?.as_deref() {
        None => Err(Unusable::Missing("crv")),
        Some("Ed25519") => binary_of_length(jwk, "x", 32),
        Some(_) => Err(Unusable::Curve),
    }
}

fn text(jwk: &Members<'_>, name: &'static str) -> Result<Option<String>, Unusable> {
    jwk.get(name).map_err(|_wrong_type| Unusable::WrongType(name))
}

fn binary(jwk: &Members<'_>, name: &'static str) -> Result<Vec<u8>, Unusable> {
    let encoded = text(jwk, name)?.ok_or(Unusable::Missing(name))?;
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_invalid| Unusable::BadEncoding(name))
}

fn binary_of_length(jwk: &Members<'_>, name: &'static str, length: usize) -> Result<Vec<u8>, Unusable> {
    let bytes = binary(jwk, name)?;
    if bytes.len() == length { Ok(bytes) } else { Err(Unusable::BadEncoding(name)) }
}

impl Unusable {
    /// Whether issuers publish such keys for good reasons (other purposes, other algorithms), so that the log need
    /// not warn of them.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        matches!(self, Self::KeyType | Self::Curve | Self::Use | Self::KeyOps | Self::Algorithm)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "not a usable JSON object: {error}"),
            Self::Missing(name) => write!(f, "`{name}` is missing"),
            Self::WrongType(name) => write!(f, "`{name}` has the wrong type"),
            Self::BadEncoding(name) => write!(f, "`{name}` is not base64url of the right length"),
            Self::KeyType => f.write_str("its `kty` is not supported"),
            Self::Curve => f.write_str("its `crv` is not supported"),
            Self::Use => f.write_str("its `use` is not `sig`"),
            Self::KeyOps => f.write_str("its `key_ops` do not include `verify`"),
            Self::Algorithm => f.write_str("none of the issuer's configured algorithms fits it"),
            Self::Symmetric => f.write_str("a published symmetric key proves nothing"),
            Self::Private => f.write_str("its private part is published: it must be replaced"),
            Self::RsaSize(bits) => {
                write!(
                    f,
                    "an RSA key of {bits} bits; {} to {} are accepted",
                    RSA_BITS.start(),
                    RSA_BITS.end()
                )
            }
            Self::NotAKey => f.write_str("its numbers are not a valid key"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the key set is larger than 1 MiB"),
            Self::NotASet(error) => write!(f, "not a JWK Set: {error}"),
            Self::TooManyKeys(count) => write!(f, "{count} keys; at most {MAX_KEYS} are accepted"),
            Self::NoUsableKey(count, None) => write!(f, "no usable key among {count}"),
            Self::NoUsableKey(count, Some(why)) => write!(f, "no usable key among {count}; the first: {why}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
    };

    use super::*;

    const ALL: &[Algorithm] = &[
        Algorithm::HS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::RS256,
        Algorithm::PS512,
        Algorithm::EdDSA,
    ];

    struct Material {
        n: Vec<u8>,
        p256: [String; 2],
        p384: [String; 2],
        x25519: String,
    }

    static KEYS: LazyLock<Material> = LazyLock::new(|| {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let point = |algorithm: &'static EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let coordinates = &pair.public_key().as_ref()[1..];
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            [encode(x), encode(y)]
        };
        Material {
            n: rsa.public_key().modulus().big_endian_without_leading_zero().to_vec(),
            p256: point(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: point(&ECDSA_P384_SHA384_FIXED_SIGNING),
            x25519: encode(Ed25519KeyPair::generate().unwrap().public_key().as_ref()),
        }
    });

    fn encode(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn rsa_jwk(n: &[u8], more: &str) -> String {
        format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"{more}}}"#, encode(n))
    }

    fn ec_jwk(crv: &str, [x, y]: &[String; 2], more: &str) -> String {
        format!(r#"{{"kty":"EC","crv":"{crv}","x":"{x}","y":"{y}"{more}}}"#)
    }

    fn okp_jwk(crv: &str, x: &str, more: &str) -> String {
        format!(r#"{{"kty":"OKP","crv":"{crv}","x":"{x}"{more}}}"#)
    }

    /// The reason for `jwk` beside a good key, which must stay usable.
    fn verdict(jwk: &str) -> Result<VerificationKey, Unusable> {
        let good = okp_jwk("Ed25519", &KEYS.x25519, r#","kid":"good""#);
        let parsed =
            parse(format!(r#"{{"keys":[{jwk},{good}]}}"#).as_bytes(), ALL).expect("one key is usable");
        assert_eq!(parsed.keys.last().and_then(VerificationKey::kid), Some("good"), "{jwk}");
        match parsed.left_out.into_iter().next() {
            Some(left_out) => {
                assert_eq!((left_out.position, parsed.keys.len()), (0, 1), "{jwk}");
                Err(left_out.why)
            }
            None => Ok(parsed.keys.into_iter().next().unwrap()),
        }
    }

    #[test]
    fn usable_keys_get_the_algorithms_that_fit() {
        let k = &*KEYS;
        let signed = [&[0][..], &k.n].concat();
        for (jwk, fitting) in [
            (rsa_jwk(&k.n, ""), &[Algorithm::RS256, Algorithm::PS512][..]),
            (rsa_jwk(&k.n, r#","alg":"PS512","use":"sig","key_ops":["sign","verify"]"#), &[Algorithm::PS512]),
            (rsa_jwk(&signed, r#","alg":"RS256""#), &[Algorithm::RS256]),
            (
                ec_jwk("P-256", &k.p256, r#","x5c":["junk"],"x5t":1,"extra":{"a":[null]}"#),
                &[Algorithm::ES256],
            ),
            (ec_jwk("P-384", &k.p384, r#","alg":"ES384""#), &[Algorithm::ES384]),
            (okp_jwk("Ed25519", &k.x25519, r#","alg":"EdDSA""#), &[Algorithm::EdDSA]),
            (okp_jwk("Ed25519", &k.x25519, r#","alg":"Ed25519""#), &[Algorithm::EdDSA]),
        ] {
            let key = verdict(&jwk).unwrap_or_else(|why| panic!("{jwk}: {why}"));
            for algorithm in ALL {
                assert_eq!(key.fits(*algorithm), fitting.contains(algorithm), "{jwk} {algorithm:?}");
            }
        }
    }

    /// Keys that only look like keys: numbers, points and encodings.
    fn broken_numbers() -> Vec<(String, Unusable)> {
        use Unusable::{BadEncoding, NotAKey, RsaSize};
        let k = &*KEYS;
        let [x, y] = &k.p256;
        let with = |x: &str, y: &str| ec_jwk("P-256", &[x.to_owned(), y.to_owned()], "");
        let mut even = k.n.clone();
        *even.last_mut().unwrap() &= 0xfe;
        let rsa_e = |e: &str| format!(r#"{{"kty":"RSA","n":"{}","e":"{e}"}}"#, encode(&k.n));
        vec![
            (rsa_jwk(&k.n[..128], ""), RsaSize(1024)),
            (rsa_jwk(&[&[0x7f][..], &k.n[1..]].concat(), ""), RsaSize(2047)),
            (rsa_jwk(&[&[0; 64][..], &k.n[..192]].concat(), ""), RsaSize(1536)),
            (rsa_jwk(&[0xff; 1025], ""), RsaSize(8200)),
            (rsa_jwk(&[], ""), RsaSize(0)),
            (rsa_jwk(&[0; 256], ""), RsaSize(0)),
            (rsa_jwk(&even, ""), NotAKey),
            (rsa_e(""), NotAKey),
            (rsa_e("AA"), NotAKey),
            (rsa_e("AQ"), NotAKey),
            (rsa_e("AQAA"), NotAKey),
            (rsa_e("AQABAQABAQAB"), NotAKey),
            (rsa_e("AQAB="), BadEncoding("e")),
            (rsa_e("AQ+/"), BadEncoding("e")),
            (rsa_e("AQ AB"), BadEncoding("e")),
            (with(y, x), NotAKey),
            (with(x, &encode(&[0; 32])), NotAKey),
            (with(&encode(&[0; 32]), &encode(&[0; 32])), NotAKey),
            (with(&encode(&[0xff; 32]), y), NotAKey),
            (with(&encode(&[1; 31]), y), BadEncoding("x")),
            (with(x, &encode(&[1; 33])), BadEncoding("y")),
            (with("", ""), BadEncoding("x")),
            (with(&format!("{x}="), y), BadEncoding("x")),
            (ec_jwk("P-256", &k.p384, ""), BadEncoding("x")),
            (ec_jwk("P-384", &k.p256, ""), BadEncoding("x")),
            (okp_jwk("Ed25519", &encode(&[1; 31]), ""), BadEncoding("x")),
            (okp_jwk("Ed25519", &encode(&[1; 33]), ""), BadEncoding("x")),
            (okp_jwk("Ed25519", "", ""), BadEncoding("x")),
        ]
    }

    /// Real keys for another purpose, and objects that are not keys.
    fn wrong_members() -> Vec<(String, Unusable)> {
        use Unusable::{Algorithm, Curve, KeyOps, KeyType, Missing, Private, Symmetric, Use, WrongType};
        let k = &*KEYS;
        let ec = |more: &str| ec_jwk("P-256", &k.p256, more);
        vec![
            (r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#.to_owned(), Symmetric),
            (r#"{"kty":"oct","k":"AAAA","alg":"HS256","use":"sig"}"#.to_owned(), Symmetric),
            (r#"{"kty":"AKP","pub":"AAAA","alg":"ML-DSA-44"}"#.to_owned(), KeyType),
            (r#"{"kty":"rsa","n":"AAAA","e":"AQAB"}"#.to_owned(), KeyType),
            (r#"{"kty":""}"#.to_owned(), KeyType),
            (r#"{"kty":["EC"]}"#.to_owned(), WrongType("kty")),
            (r#"{"kty":null}"#.to_owned(), WrongType("kty")),
            ("{}".to_owned(), Missing("kty")),
            (r#"{"kid":"x"}"#.to_owned(), Missing("kty")),
            (r#"{"kty":"RSA","e":"AQAB"}"#.to_owned(), Missing("n")),
            (r#"{"kty":"RSA","n":1,"e":"AQAB"}"#.to_owned(), WrongType("n")),
            (r#"{"kty":"RSA","d":"AQAB"}"#.to_owned(), Missing("n")),
            (r#"{"kty":"EC","crv":"P-256","d":"AQAB"}"#.to_owned(), Missing("x")),
            (r#"{"kty":"EC","x":"AA","y":"AA"}"#.to_owned(), Missing("crv")),
            (r#"{"kty":"OKP","x":"AA"}"#.to_owned(), Missing("crv")),
            (r#"{"kty":"OKP","crv":"Ed25519"}"#.to_owned(), Missing("x")),
            (okp_jwk("X25519", &k.x25519, ""), Curve),
            (okp_jwk("Ed448", &k.x25519, ""), Curve),
            (okp_jwk("P-256", &k.x25519, ""), Curve),
            (ec_jwk("P-521", &k.p256, ""), Curve),
            (ec_jwk("secp256k1", &k.p256, ""), Curve),
            (ec_jwk("Ed25519", &k.p256, ""), Curve),
            (ec_jwk("p-256", &k.p256, ""), Curve),
            (ec(r#","use":"enc""#), Use),
            (ec(r#","use":"SIG""#), Use),
            (ec(r#","use":["sig"]"#), WrongType("use")),
            (ec(r#","key_ops":["sign"]"#), KeyOps),
            (ec(r#","key_ops":[]"#), KeyOps),
            (ec(r#","key_ops":"verify""#), WrongType("key_ops")),
            (ec(r#","key_ops":["verify",1]"#), WrongType("key_ops")),
            (ec(r#","alg":"ES384""#), Algorithm),
            (ec(r#","alg":"RS256""#), Algorithm),
            (ec(r#","alg":"HS256""#), Algorithm),
            (ec(r#","alg":"none""#), Algorithm),
            (ec(r#","alg":"ECDH-ES""#), Algorithm),
            (ec(r#","alg":"Ed25519""#), Algorithm),
            (ec(r#","alg":256"#), WrongType("alg")),
            (rsa_jwk(&k.n, r#","alg":"RSA-OAEP""#), Algorithm),
            (rsa_jwk(&k.n, r#","alg":"RS384""#), Algorithm),
            (ec(r#","kid":7"#), WrongType("kid")),
            (ec(r#","d":"AQAB""#), Private),
            (rsa_jwk(&k.n, r#","d":"AQAB""#), Private),
            (okp_jwk("Ed25519", &k.x25519, r#","d":null"#), Private),
        ]
    }

    #[test]
    fn one_unusable_key_is_left_out_and_the_rest_is_used() {
        let mut rows = broken_numbers();
        rows.extend(wrong_members());
        assert!(rows.len() >= 70);
        for (jwk, expected) in rows {
            let why = verdict(&jwk).expect_err(&jwk);
            assert_eq!(why, expected, "{jwk}");
            assert!(!why.to_string().is_empty());
        }
    }

    #[test]
    fn what_is_no_object_or_ambiguous_is_left_out() {
        let [x, y] = &KEYS.p256;
        for jwk in [
            "null",
            "1",
            "\"EC\"",
            "[]",
            "[{}]",
            &ec_jwk("P-256", &KEYS.p256, r#","kid":"a","kid":"a""#),
            &ec_jwk("P-256", &KEYS.p256, r#","use":"enc","use":"sig""#),
            &ec_jwk("P-256", &KEYS.p256, r#","us\u0065":"enc","use":"sig""#),
            &format!(r#"{{"kty":"oct","kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#),
        ] {
            assert!(matches!(verdict(jwk), Err(Unusable::Malformed(_))), "{jwk}");
        }
    }

    #[test]
    fn documents_without_a_usable_key_are_refused() {
        let good = okp_jwk("Ed25519", &KEYS.x25519, "");
        for document in [
            String::new(),
            " ".to_owned(),
            "null".to_owned(),
            "[]".to_owned(),
            "<!doctype html>".to_owned(),
            format!("[{good}]"),
            good.clone(),
            "{}".to_owned(),
            r#"{"keys":null}"#.to_owned(),
            r#"{"keys":{}}"#.to_owned(),
            r#"{"keys":"x"}"#.to_owned(),
            format!(r#"{{"keys":[{good}],"keys":[{good}]}}"#),
            format!(r#"{{"keys":[{good}]"#),
            format!(r#"{{"keys":[{good}]}} trailing"#),
            format!(r#"{{"keys":[{good},]}}"#),
            format!(r#"{{"KEYS":[{good}]}}"#),
            format!("\u{feff}{{\"keys\":[{good}]}}"),
        ] {
            assert!(matches!(parse(document.as_bytes(), ALL), Err(Error::NotASet(_))), "{document}");
        }
        let invalid = [format!(r#"{{"x":"{good}"#).as_bytes(), b"\xff\"}"].concat();
        assert!(matches!(parse(&invalid, ALL), Err(Error::NotASet(_))));
        assert_eq!(parse(br#"{"keys":[]}"#, ALL).unwrap_err(), Error::NoUsableKey(0, None));
        let none = parse(br#"{"keys":[{"kty":"oct"},1]}"#, ALL).unwrap_err();
        assert_eq!(none, Error::NoUsableKey(2, Some(Unusable::Symmetric)));
        let unfit = parse(format!(r#"{{"keys":[{good}]}}"#).as_bytes(), &[Algorithm::RS256]).unwrap_err();
        assert_eq!(unfit, Error::NoUsableKey(1, Some(Unusable::Algorithm)));
    }

    #[test]
    fn size_and_number_are_limited() {
        let good = okp_jwk("Ed25519", &KEYS.x25519, "");
        let of = |count: usize| format!(r#"{{"keys":[{}]}}"#, vec![good.as_str(); count].join(","));
        assert_eq!(parse(of(MAX_KEYS).as_bytes(), ALL).unwrap().keys.len(), MAX_KEYS);
        assert_eq!(parse(of(MAX_KEYS + 1).as_bytes(), ALL).unwrap_err(), Error::TooManyKeys(MAX_KEYS + 1));
        let mut padded = of(1);
        padded.extend(std::iter::repeat_n(' ', MAX_BYTES - padded.len()));
        assert_eq!(parse(padded.as_bytes(), ALL).unwrap().keys.len(), 1);
        padded.push(' ');
        assert_eq!(parse(padded.as_bytes(), ALL).unwrap_err(), Error::TooLarge);
    }

    #[test]
    fn deep_nesting_is_harmless() {
        let deep =
            format!(r#"{{"keys":[{{"kty":"EC","x":{}1{}}}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(deep.as_bytes(), ALL).is_err());
    }

    #[test]
    fn the_log_gets_a_short_kid() {
        let jwk = format!(r#"{{"kty":"oct","kid":"{}"}}"#, "é".repeat(500));
        let good = okp_jwk("Ed25519", &KEYS.x25519, "");
        let parsed = parse(format!(r#"{{"keys":[{jwk},{good}]}}"#).as_bytes(), ALL).unwrap();
        assert_eq!(parsed.left_out[0].kid.as_deref(), Some("é".repeat(64).as_str()));
    }
}
