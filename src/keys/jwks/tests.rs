//! Key sets as issuers publish them: which keys are used, which are left out, and what makes the whole
//! document unusable.

use std::sync::LazyLock;

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RsaKeyPair,
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

/// The reason for `jwk` next to a good key, which must stay usable.
fn verdict(jwk: &str) -> Result<VerificationKey, UnusableKey> {
    let good = okp_jwk("Ed25519", &KEYS.x25519, r#","kid":"good""#);
    let parsed = parse(format!(r#"{{"keys":[{jwk},{good}]}}"#).as_bytes(), ALL).expect("one key is usable");
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
        (ec_jwk("P-256", &k.p256, r#","x5c":["junk"],"x5t":1,"extra":{"a":[null]}"#), &[Algorithm::ES256]),
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

/// Values that only look like keys: numbers, points and encodings.
fn broken_numbers() -> Vec<(String, UnusableKey)> {
    use UnusableKey::{BadEncoding, NotAKey, RsaSize};
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

/// Valid keys for other purposes, and objects that are not keys.
fn wrong_members() -> Vec<(String, UnusableKey)> {
    use UnusableKey::{Algorithm, Curve, KeyOps, KeyType, Missing, Private, Symmetric, Use, WrongType};
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
        assert!(matches!(verdict(jwk), Err(UnusableKey::Malformed(_))), "{jwk}");
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
        assert!(matches!(parse(document.as_bytes(), ALL), Err(KeySetError::NotASet(_))), "{document}");
    }
    let invalid = [format!(r#"{{"x":"{good}"#).as_bytes(), b"\xff\"}"].concat();
    assert!(matches!(parse(&invalid, ALL), Err(KeySetError::NotASet(_))));
    assert_eq!(parse(br#"{"keys":[]}"#, ALL).unwrap_err(), KeySetError::NoUsableKey(0, None));
    let none = parse(br#"{"keys":[{"kty":"oct"},1]}"#, ALL).unwrap_err();
    assert_eq!(none, KeySetError::NoUsableKey(2, Some(UnusableKey::Symmetric)));
    let unfit = parse(format!(r#"{{"keys":[{good}]}}"#).as_bytes(), &[Algorithm::RS256]).unwrap_err();
    assert_eq!(unfit, KeySetError::NoUsableKey(1, Some(UnusableKey::Algorithm)));
}

#[test]
fn size_and_number_are_limited() {
    let good = okp_jwk("Ed25519", &KEYS.x25519, "");
    let of = |count: usize| format!(r#"{{"keys":[{}]}}"#, vec![good.as_str(); count].join(","));
    assert_eq!(parse(of(MAX_KEYS).as_bytes(), ALL).unwrap().keys.len(), MAX_KEYS);
    assert_eq!(parse(of(MAX_KEYS + 1).as_bytes(), ALL).unwrap_err(), KeySetError::TooManyKeys(MAX_KEYS + 1));
    let mut padded = of(1);
    padded.extend(std::iter::repeat_n(' ', MAX_BYTES - padded.len()));
    assert_eq!(parse(padded.as_bytes(), ALL).unwrap().keys.len(), 1);
    padded.push(' ');
    assert_eq!(parse(padded.as_bytes(), ALL).unwrap_err(), KeySetError::TooLarge);
}

#[test]
fn deep_nesting_is_harmless() {
    let deep = format!(r#"{{"keys":[{{"kty":"EC","x":{}1{}}}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(deep.as_bytes(), ALL).is_err());
}

#[test]
fn the_log_gets_a_short_kid() {
    let jwk = format!(r#"{{"kty":"oct","kid":"{}"}}"#, "é".repeat(500));
    let good = okp_jwk("Ed25519", &KEYS.x25519, "");
    let parsed = parse(format!(r#"{{"keys":[{jwk},{good}]}}"#).as_bytes(), ALL).unwrap();
    assert_eq!(parsed.left_out[0].kid.as_deref(), Some("é".repeat(64).as_str()));
}

#[test]
fn a_document_may_be_as_large_and_as_long_as_the_limits_and_no_more() {
    let good = okp_jwk("Ed25519", &KEYS.x25519, "");
    let one = format!(r#"{{"keys":[{good}]}}"#);
    for (length, fits) in [(MAX_BYTES - 1, true), (MAX_BYTES, true), (MAX_BYTES + 1, false)] {
        let mut document = one.clone().into_bytes();
        document.resize(length, b' ');
        let parsed = parse(&document, ALL);
        assert_eq!(parsed.err(), (!fits).then_some(KeySetError::TooLarge), "{length}");
    }
    for (count, fits) in [(999, true), (1_000, true), (1_001, false)] {
        let others = "{},".repeat(count - 1);
        let parsed = parse(format!(r#"{{"keys":[{others}{good}]}}"#).as_bytes(), ALL);
        let found = parsed.map(|parsed| (parsed.keys.len(), parsed.left_out.len()));
        let expected = if fits { Ok((1, count - 1)) } else { Err(KeySetError::TooManyKeys(count)) };
        assert_eq!(found, expected, "{count}");
    }
}

#[test]
fn the_log_says_why_a_document_is_refused() {
    let missing = UnusableKey::Missing("kty");
    for (error, text) in [
        (KeySetError::TooLarge, "the key set is larger than 1 MiB"),
        (KeySetError::NotASet("x".to_owned()), "not a JWK Set: x"),
        (KeySetError::TooManyKeys(1_001), "the key set has 1001 keys; at most 1000 are accepted"),
        (KeySetError::NoUsableKey(0, None), "no usable key (of 0)"),
        (KeySetError::NoUsableKey(2, Some(missing)), "no usable key (of 2); the first: `kty` is missing"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    let Err(KeySetError::NotASet(error)) = parse(b"[]", ALL) else { panic!("a set") };
    assert!(error.starts_with("invalid type: sequence, expected an object"), "{error}");
}

#[test]
fn keys_for_other_uses_are_ordinary_and_mistakes_are_not() {
    use UnusableKey::{
        Algorithm, BadEncoding, Curve, KeyOps, KeyType, Malformed, Missing, NotAKey, Private, RsaSize,
        Symmetric, Use, WrongType,
    };
    for ordinary in [KeyType, Curve, Use, KeyOps, Algorithm] {
        assert!(ordinary.is_ordinary(), "{ordinary:?}");
    }
    let malformed = Malformed(String::new());
    for mistake in [
        malformed,
        Missing("x"),
        WrongType("x"),
        BadEncoding("x"),
        Symmetric,
        Private,
        RsaSize(1_024),
        NotAKey,
    ] {
        assert!(!mistake.is_ordinary(), "{mistake:?}");
    }
}

#[test]
fn of_a_bundle_only_named_keys_for_jwt_svids_count() {
    use UnusableKey::{KeyOps, Missing, NotForSvids, Use, WrongType};
    let k = &*KEYS;
    let key = |more: &str| ec_jwk("P-256", &k.p256, more);
    let table = [
        (r#","kid":"a","use":"jwt-svid""#, None),
        (r#","kid":"a","use":"jwt-svid","key_ops":["sign"]"#, Some(KeyOps)),
        (r#","use":"jwt-svid""#, Some(Missing("kid"))),
        (r#","kid":"a","use":"x509-svid""#, Some(NotForSvids)),
        (r#","kid":"a","use":"wit-svid""#, Some(NotForSvids)),
        (r#","kid":"a","use":"sig""#, Some(NotForSvids)),
        (r#","kid":"a""#, Some(NotForSvids)),
        (r#","kid":"a","use":7"#, Some(WrongType("use"))),
    ];
    let good = key(r#","kid":"good","use":"jwt-svid""#);
    for (more, expected) in table {
        let document = format!(r#"{{"keys":[{good},{}]}}"#, key(more));
        let parsed = parse_for(document.as_bytes(), ALL, true).expect("one key is usable");
        assert_eq!(parsed.left_out.first().map(|key| key.why.clone()), expected, "{more}");
        assert_eq!(parsed.keys.len(), 2 - parsed.left_out.len());
        assert_eq!(parsed.refresh_hint, None);
    }
    assert!(NotForSvids.is_ordinary(), "every bundle has others");
    // A key for JWT-SVIDs is not for other tokens.
    let alone = format!(r#"{{"keys":[{good}]}}"#);
    assert_eq!(parse(alone.as_bytes(), ALL).unwrap_err(), KeySetError::NoUsableKey(1, Some(Use)));
}

#[test]
fn a_bundle_may_say_when_it_is_to_be_fetched_again() {
    let key = okp_jwk("Ed25519", &KEYS.x25519, "");
    for (hint, expected) in [
        ("60", Some(60)),
        ("0", Some(0)),
        ("-1", None),
        ("1.5", None),
        ("\"60\"", None),
        ("null", None),
        ("{}", None),
    ] {
        let document = format!(r#"{{"keys":[{key}],"spiffe_refresh_hint":{hint}}}"#);
        let parsed = parse(document.as_bytes(), ALL).expect("a key");
        assert_eq!(parsed.refresh_hint, expected.map(Duration::from_secs), "{hint}");
    }
}
