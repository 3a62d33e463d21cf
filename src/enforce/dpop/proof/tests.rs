//! Proofs of every shape: the example of the specification, every algorithm, and every fault.

use aws_lc_rs::signature;
use serde_json::json;

use super::*;
use crate::enforce::dpop::testing::{TOKEN, changed, header, payload, proof_by};
use crate::enforce::testing::{NOW, SIGNERS, Signer, b64, now, token_of};

fn judged(proof: &str, signer: &Signer) -> Result<ProvenKey, ProofFault> {
    judged_at(proof, &signer.thumbprint(), now())
}

fn judged_at(proof: &str, bound: &[u8; 32], now: Timestamp) -> Result<ProvenKey, ProofFault> {
    let origin = UriOrigin::parse("https://api.example");
    judge(
        proof.as_bytes(),
        &ExpectedProof {
            method: &Method::GET,
            origin: origin.as_ref(),
            path: "/deals/7",
            token: Some((TOKEN.as_bytes(), bound)),
            window: Duration::from_secs(90),
            now,
        },
    )
}

fn fault(in_header: Value, in_payload: Value) -> Option<ProofFault> {
    judged(&proof_by(&SIGNERS.es256, in_header, in_payload), &SIGNERS.es256).err()
}

#[test]
fn the_sample_of_rfc_9449_section_7_1_proves_its_key() {
    let proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    let bound = URL_SAFE_NO_PAD.decode("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I").unwrap();
    let origin = UriOrigin::https("resource.example.org");
    let expected = ExpectedProof {
        method: &Method::GET,
        origin: origin.as_ref(),
        path: "/protectedresource",
        token: Some((TOKEN.as_bytes(), bound.as_slice().try_into().unwrap())),
        window: Duration::from_secs(90),
        now: Timestamp::from_secs(1_562_262_618),
    };
    let proven = judge(proof.as_bytes(), &expected).unwrap();
    assert_eq!(proven.thumbprint.as_slice(), bound);
    assert_eq!((proven.issued_at, proven.nonce), (expected.now, None));
    let later = ExpectedProof { now: now(), ..expected };
    assert_eq!(judge(proof.as_bytes(), &later), Err(ProofFault::Time));
}

/// A valid proof of this many bytes.
fn of_length(length: usize) -> String {
    let padded = |header: usize, payload: usize| {
        proof_by(&SIGNERS.es256, json!({ "x": "y".repeat(header) }), json!({ "x": "y".repeat(payload) }))
    };
    // Only three of four lengths are possible for base64.
    let proofs = (0..3).flat_map(|header| {
        let missing = length.saturating_sub(padded(header, 0).len()) * 3 / 4;
        (missing.saturating_sub(2)..missing + 3).map(move |payload| (header, payload))
    });
    proofs.map(|(header, payload)| padded(header, payload)).find(|proof| proof.len() == length).unwrap()
}

#[test]
fn a_proof_is_read_up_to_its_greatest_length() {
    for (length, expected) in [
        (MAX_PROOF - 1, None),
        (MAX_PROOF, None),
        (MAX_PROOF + 1, Some(ProofFault::Malformed)),
        (MAX_PROOF + 2, Some(ProofFault::Malformed)),
    ] {
        assert_eq!(judged(&of_length(length), &SIGNERS.es256).err(), expected, "{length}");
    }
}

#[test]
fn a_path_of_the_configuration_is_compared_in_canonical_form() {
    for (path, canonical) in [
        ("/", Some("/")),
        ("/oauth/token", Some("/oauth/token")),
        ("/%6fauth/t%c3%a4", Some("/oauth/t%C3%A4")),
        ("/a//b", None),
        ("/a/../b", None),
        ("a", None),
    ] {
        assert_eq!(canonical_path(path).as_deref(), canonical, "{path}");
    }
}

#[test]
fn every_asymmetric_algorithm_proves_its_key() {
    let rsa = Signer::rsa;
    for (alg, signer) in [
        ("ES256", &SIGNERS.es256),
        ("ES384", &SIGNERS.es384),
        ("EdDSA", &SIGNERS.ed25519),
        ("Ed25519", &SIGNERS.ed25519),
        ("RS256", &SIGNERS.rs256),
        ("PS256", &SIGNERS.ps256),
        ("RS384", &rsa(&signature::RSA_PKCS1_SHA384)),
        ("RS512", &rsa(&signature::RSA_PKCS1_SHA512)),
        ("PS384", &rsa(&signature::RSA_PSS_SHA384)),
        ("PS512", &rsa(&signature::RSA_PSS_SHA512)),
    ] {
        assert!(ALGORITHMS.contains(&alg));
        let proof = proof_by(signer, json!({ "alg": alg, "jwk": signer.jwk() }), json!({}));
        let proven = judged(&proof, signer).unwrap_or_else(|fault| panic!("{alg}: {fault:?}"));
        assert_eq!(proven.thumbprint, signer.thumbprint(), "{alg}");
        let stolen = judged(&proof, &SIGNERS.stranger);
        assert_eq!(stolen, Err(ProofFault::OtherKey), "{alg}");
    }
}

#[test]
fn a_header_that_breaks_the_rules_proves_nothing() {
    let with_private = changed(SIGNERS.es256.jwk(), json!({ "d": "AAAA" }));
    for (changes, expected) in [
        (json!({ "typ": null }), ProofFault::Type),
        (json!({ "typ": "JWT" }), ProofFault::Type),
        (json!({ "typ": "at+jwt" }), ProofFault::Type),
        (json!({ "typ": "DPOP+JWT" }), ProofFault::Type),
        (json!({ "typ": 7 }), ProofFault::Type),
        (json!({ "alg": null }), ProofFault::Algorithm),
        (json!({ "alg": "none" }), ProofFault::Algorithm),
        (json!({ "alg": "HS256" }), ProofFault::Algorithm),
        (json!({ "alg": "ES256K" }), ProofFault::Algorithm),
        (json!({ "alg": "es256" }), ProofFault::Algorithm),
        (json!({ "alg": 7 }), ProofFault::Algorithm),
        (json!({ "jwk": null }), ProofFault::Key),
        (json!({ "jwk": "key" }), ProofFault::Key),
        (json!({ "jwk": {} }), ProofFault::Key),
        (json!({ "jwk": { "kty": "oct" } }), ProofFault::Key),
        (json!({ "jwk": { "kty": "oct", "k": "AAAA" } }), ProofFault::PrivateKey),
        (json!({ "jwk": with_private }), ProofFault::PrivateKey),
        (json!({ "jwk": SIGNERS.stranger.jwk() }), ProofFault::OtherKey),
        (json!({ "alg": "ES384" }), ProofFault::Key),
        (json!({ "alg": "EdDSA" }), ProofFault::Key),
        (json!({ "crit": ["exp"] }), ProofFault::Malformed),
        (json!({ "b64": false }), ProofFault::Malformed),
        (json!({ "kid": 7 }), ProofFault::Malformed),
        (json!({ "jwk": changed(SIGNERS.es256.jwk(), json!({ "use": "enc" })) }), ProofFault::Key),
    ] {
        assert_eq!(fault(changes.clone(), json!({})), Some(expected), "{changes}");
    }
    assert_eq!(
        fault(json!({ "kid": "x", "jwk": changed(SIGNERS.es256.jwk(), json!({ "kid": "x" })) }), json!({})),
        None
    );
}

#[test]
fn a_secret_that_everybody_knows_signs_no_proof() {
    // The public key as an HMAC secret: an old way to fool verifiers.
    let secret = Signer::hmac(&SIGNERS.es256.public());
    for alg in ["HS256", "ES256"] {
        let proof = proof_by(&secret, json!({ "alg": alg }), json!({}));
        let expected = if alg == "ES256" { ProofFault::Signature } else { ProofFault::Algorithm };
        assert_eq!(judged(&proof, &SIGNERS.es256), Err(expected));
    }
}

#[test]
fn claims_that_break_the_rules_prove_nothing() {
    let long = "j".repeat(MAX_JTI);
    assert_eq!(fault(json!({}), json!({ "jti": long })), None);
    for (changes, expected) in [
        (json!({ "jti": null }), ProofFault::Claim),
        (json!({ "jti": "" }), ProofFault::Claim),
        (json!({ "jti": 7 }), ProofFault::Claim),
        (json!({ "jti": format!("{long}j") }), ProofFault::Claim),
        (json!({ "htm": null }), ProofFault::Claim),
        (json!({ "htm": "POST" }), ProofFault::Method),
        (json!({ "htm": "get" }), ProofFault::Method),
        (json!({ "htm": ["GET"] }), ProofFault::Claim),
        (json!({ "htu": null }), ProofFault::Claim),
        (json!({ "htu": 7 }), ProofFault::Claim),
        (json!({ "htu": "https://api.example/deals/8" }), ProofFault::Uri),
        (json!({ "htu": "http://api.example/deals/7" }), ProofFault::Uri),
        (json!({ "htu": "https://evil.example/deals/7" }), ProofFault::Uri),
        (json!({ "iat": null }), ProofFault::Claim),
        (json!({ "iat": "now" }), ProofFault::Claim),
        (json!({ "iat": 1e300 }), ProofFault::Claim),
        (json!({ "ath": null }), ProofFault::Claim),
        (json!({ "ath": 7 }), ProofFault::Claim),
        (json!({ "ath": "" }), ProofFault::Token),
        (json!({ "ath": format!("{}=", b64(&[0; 32])) }), ProofFault::Token),
        (json!({ "nonce": 7 }), ProofFault::Claim),
    ] {
        assert_eq!(fault(json!({}), changes.clone()), Some(expected), "{changes}");
    }
    assert_eq!(fault(json!({}), json!({ "htu": "https://api.example/deals/7?page=2#top" })), None);
    let proven = judged(&proof_by(&SIGNERS.es256, json!({}), json!({ "nonce": "n" })), &SIGNERS.es256);
    assert_eq!(proven.unwrap().nonce.as_deref(), Some("n"));
}

#[test]
fn a_proof_is_good_for_the_window_on_both_sides() {
    let bound = SIGNERS.es256.thumbprint();
    let proof = proof_by(&SIGNERS.es256, json!({}), json!({}));
    for (millis, good) in [(-90_001, false), (-90_000, true), (0, true), (90_000, true), (90_001, false)] {
        let judged = judged_at(&proof, &bound, Timestamp::from_millis(NOW * 1000 + millis));
        assert_eq!(judged.err(), (!good).then_some(ProofFault::Time), "{millis}");
    }
}

#[test]
fn what_is_no_whole_jwt_proves_nothing() {
    let good = proof_by(&SIGNERS.es256, json!({}), json!({}));
    assert!(judged(&good, &SIGNERS.es256).is_ok());
    let (input, signature) = good.rsplit_once('.').unwrap();
    let mut damaged = URL_SAFE_NO_PAD.decode(signature).unwrap();
    damaged[7] ^= 1;
    for (proof, expected) in [
        (String::new(), ProofFault::Malformed),
        ("x".to_owned(), ProofFault::Malformed),
        (format!("{good}."), ProofFault::Malformed),
        (format!("{good}, {good}"), ProofFault::Malformed),
        (format!("{good} "), ProofFault::Malformed),
        (format!("{good}="), ProofFault::Malformed),
        (input.to_owned(), ProofFault::Malformed),
        (format!("{input}."), ProofFault::Signature),
        (format!("{input}.{}", b64(&damaged)), ProofFault::Signature),
        (format!("{input}.{}", b64(&damaged[1..])), ProofFault::Signature),
        (proof_by(&SIGNERS.stranger, json!({}), json!({})), ProofFault::Signature),
        (proof_by(&SIGNERS.es256, json!({}), json!({ "x": "y".repeat(MAX_PROOF) })), ProofFault::Malformed),
        (
            token_of(
                &SIGNERS.es256,
                &header().to_string(),
                &payload(TOKEN).to_string().replacen('{', "{\"jti\":\"other\",", 1),
            ),
            ProofFault::Malformed,
        ),
        (token_of(&SIGNERS.es256, &header().to_string(), "[]"), ProofFault::Malformed),
    ] {
        assert_eq!(judged(&proof, &SIGNERS.es256), Err(expected), "{proof}");
    }
}

#[test]
fn where_a_token_is_asked_for_no_token_is_hashed() {
    let proof = proof_by(&SIGNERS.es256, json!({}), json!({ "ath": null, "htm": "POST" }));
    let origin = UriOrigin::https("api.example");
    let expected = ExpectedProof {
        method: &Method::POST,
        origin: origin.as_ref(),
        path: "/deals/7",
        token: None,
        window: Duration::ZERO,
        now: now(),
    };
    assert_eq!(judge(proof.as_bytes(), &expected).unwrap().thumbprint, SIGNERS.es256.thumbprint());
    let nowhere = ExpectedProof { origin: None, ..expected };
    assert_eq!(judge(proof.as_bytes(), &nowhere), Err(ProofFault::Uri));
}

#[test]
fn a_proof_is_remembered_by_its_key_and_its_jti() {
    let named = |signer: &Signer, alg: &str, jti: &str| {
        let proof = proof_by(signer, json!({ "alg": alg, "jwk": signer.jwk() }), json!({ "jti": jti }));
        judged(&proof, signer).unwrap().replay
    };
    let first = named(&SIGNERS.es256, "ES256", "a");
    assert_eq!(named(&SIGNERS.es256, "ES256", "a"), first, "signed again");
    assert_ne!(named(&SIGNERS.es256, "ES256", "b"), first);
    assert_ne!(named(&SIGNERS.stranger, "ES256", "a"), first);
}

#[test]
fn one_field_carries_the_proof() {
    let mut headers = HeaderMap::new();
    assert_eq!(field(&headers), Err(ProofFault::Absent));
    headers.append(DPOP, "a".parse().unwrap());
    assert_eq!(field(&headers), Ok(&b"a"[..]));
    headers.append(DPOP, "a".parse().unwrap());
    assert_eq!(field(&headers), Err(ProofFault::Several));
}

#[test]
fn every_fault_has_a_description_of_its_own() {
    let mut texts = ProofFault::ALL.map(ProofFault::description);
    texts.sort_unstable();
    assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "{texts:?}");
    assert!(texts.iter().all(|text| text.starts_with("The ") && !text.contains(['"', '\\'])));
}
