//! Tokens that must not be accepted: each is rejected with the right code of RFC 8935 §2.4, and none yields an event.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::keys::store::KeyStore;
use portcullis::metrics::Metrics;
use portcullis::signals::ssf::{Code, KeysAsked, Transmitter, Unaccepted};
use portcullis::time::{Monotonic, Now};
use serde_json::{Value, json};

use super::{
    ISSUER, NOW, SESSION_REVOKED, SET, Settings, Signer, at, claims, fresh_key, key_set, receive,
    security_event, settings, sign, tolerant, transmitter, words,
};

const HEADER: &str = r#"{"alg":"ES256","kid":"a","typ":"secevent+jwt"}"#;

fn refused(settings: Settings, signer: &Signer, body: &str) -> String {
    let received = transmitter(settings, signer).receive(body.as_bytes(), SET, KeysAsked::Nothing, at(NOW));
    words(received).join(" ")
}

/// The claims with one changed, or removed if it is null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    match value {
        Value::Null => drop(members.remove(name)),
        value => drop(members.insert(name.to_owned(), value)),
    }
    claims
}

#[test]
fn the_token_itself_is_accepted() {
    assert_eq!(receive(settings(), &claims()), [format!("subject-revoked alice @{}", NOW - 2)]);
}

#[test]
fn hostile_headers_are_rejected() {
    let (signer, payload) = (fresh_key(), claims().to_string());
    for (header, expected) in [
        (r#"{"alg":"ES256","kid":"a"}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":"JWT"}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":"at+jwt"}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":"secevent"}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":["secevent+jwt"]}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":null}"#, "invalid_request"),
        (r#"{"alg":"none","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":"HS256","kid":"a","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":"es256","kid":"a","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":7,"kid":"a","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"kid":"a","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":"RS256","kid":"a","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":"ES384","kid":"a","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":"ES256","kid":"b","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":"ES256","kid":"","typ":"secevent+jwt"}"#, "invalid_key"),
        (r#"{"alg":"ES256","kid":7,"typ":"secevent+jwt"}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":"secevent+jwt","crit":["exp"]}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":"secevent+jwt","crit":[]}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":"secevent+jwt","b64":false}"#, "invalid_request"),
        (r#"{"alg":"ES256","alg":"ES256","kid":"a","typ":"secevent+jwt"}"#, "invalid_request"),
        (r#"{"alg":"ES256","kid":"a","typ":"JWT","typ":"secevent+jwt"}"#, "invalid_request"),
        ("[]", "invalid_request"),
        ("", "invalid_request"),
    ] {
        assert_eq!(refused(settings(), &signer, &sign(&signer, header, &payload)), expected, "{header}");
    }
    for header in [
        r#"{"alg":"ES256","typ":"secevent+jwt"}"#,
        r#"{"alg":"ES256","kid":"a","typ":"SecEvent+JWT"}"#,
        r#"{"alg":"ES256","kid":"a","typ":"application/secevent+jwt"}"#,
    ] {
        let words = refused(settings(), &signer, &sign(&signer, header, &payload));
        assert!(words.starts_with("subject-revoked alice"), "{header}: {words}");
    }
    for typ in ["at+jwt", "application/at+jwt", "logout+jwt", "dpop+jwt"] {
        let header = format!(r#"{{"alg":"ES256","kid":"a","typ":"{typ}"}}"#);
        let words = refused(tolerant(), &signer, &sign(&signer, &header, &payload));
        assert_eq!(words, "invalid_request", "{typ}");
    }
}

#[test]
fn hostile_payloads_are_rejected() {
    let revoked = json!({SESSION_REVOKED: {}});
    for (name, value, expected) in [
        ("iss", Value::Null, "invalid_request"),
        ("iss", json!([ISSUER]), "invalid_request"),
        ("iss", json!("https://idp.example.com"), "invalid_issuer"),
        ("iss", json!("https://IDP.example.com/"), "invalid_issuer"),
        ("aud", Value::Null, "invalid_audience"),
        ("aud", json!([]), "invalid_audience"),
        ("aud", json!("https://api.example.com"), "invalid_audience"),
        ("aud", json!("https://gate.example.com/"), "invalid_audience"),
        ("aud", json!(["https://api.example.com", "x"]), "invalid_audience"),
        ("aud", json!(["https://gate.example.com", 7]), "invalid_request"),
        ("aud", json!({"0": "https://gate.example.com"}), "invalid_request"),
        ("jti", Value::Null, "invalid_request"),
        ("jti", json!(""), "invalid_request"),
        ("jti", json!(7), "invalid_request"),
        ("iat", Value::Null, "invalid_request"),
        ("iat", json!("1767225600"), "invalid_request"),
        ("iat", json!(-1), "invalid_request"),
        ("toe", json!("yesterday"), "invalid_request"),
        ("nbf", json!(NOW + 301), "invalid_request"),
        ("exp", json!(NOW + 3600), "invalid_request"),
        ("sub", json!("alice"), "invalid_request"),
        ("sub_id", Value::Null, "invalid_request"),
        ("events", Value::Null, "invalid_request"),
        ("events", json!({}), "invalid_request"),
        ("events", json!([revoked]), "invalid_request"),
        ("events", json!(revoked.to_string()), "invalid_request"),
        ("events", json!({SESSION_REVOKED: null}), "invalid_request"),
        ("events", json!({SESSION_REVOKED: true}), "invalid_request"),
        ("events", json!({SESSION_REVOKED: []}), "invalid_request"),
        ("events", json!({SESSION_REVOKED: {}, "x:y": "z"}), "invalid_request"),
    ] {
        assert_eq!(receive(settings(), &with(name, value.clone())), [expected], "{name} {value}");
    }
}

#[test]
fn tolerance_has_limits() {
    for (name, value) in [
        ("exp", json!(NOW - 300)),
        ("exp", json!("never")),
        ("exp", json!((NOW - 300) * 1000)),
        ("nbf", json!(NOW + 301)),
        ("sub_id", Value::Null),
        ("events", json!("session-revoked")),
        ("events", json!("[]")),
        ("events", json!(r#"{"sub":"alice"}"#)),
        ("events", json!(r#"{"type":"consent-revoked","type":"email-enabled","sub":"alice"}"#)),
        ("jti", Value::Null),
    ] {
        assert_eq!(receive(tolerant(), &with(name, value.clone())), ["invalid_request"], "{name} {value}");
    }
    let mut sound = with("exp", json!(NOW - 299));
    sound["sub"] = json!("somebody");
    assert_eq!(receive(tolerant(), &sound), [format!("subject-revoked alice @{}", NOW - 2)]);
}

#[test]
fn an_access_token_is_no_set() {
    let signer = fresh_key();
    let token = json!({
        "iss": ISSUER, "aud": "https://gate.example.com", "sub": "alice", "client_id": "app", "jti": "1",
        "iat": NOW, "exp": NOW + 60, "scope": "read:deals", "roles": [],
    });
    for typ in ["JWT", "at+jwt", "secevent+jwt"] {
        let header = format!(r#"{{"alg":"ES256","kid":"a","typ":"{typ}"}}"#);
        let body = sign(&signer, &header, &token.to_string());
        for settings in [settings(), tolerant()] {
            assert_eq!(refused(settings, &signer, &body), "invalid_request", "{typ}");
        }
    }
}

#[test]
fn malformed_texts_are_rejected() {
    let signer = fresh_key();
    let good = security_event(&signer, &claims());
    let (input, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = input.split_once('.').unwrap();
    let other = security_event(&fresh_key(), &claims());
    let (_, forged) = other.rsplit_once('.').unwrap();
    let twice = claims().to_string().replacen('{', r#"{"iss":"https://evil.example/","#, 1);
    let deep_twice = claims().to_string().replace(r#""sub":"alice""#, r#""sub":"alice","sub":"bob""#);
    let deep =
        claims().to_string().replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(99), "]".repeat(99)), 1);
    let der = {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        URL_SAFE_NO_PAD.encode(pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap())
    };
    let altered = URL_SAFE_NO_PAD.encode(claims().to_string().replace("alice", "admin"));
    for (body, expected) in [
        (String::new(), "invalid_request"),
        ("..".to_owned(), "invalid_request"),
        (input.to_owned(), "invalid_request"),
        (format!("{good}.x"), "invalid_request"),
        (format!("{good}\n"), "invalid_request"),
        (format!(" {good}"), "invalid_request"),
        (format!("{good}="), "invalid_request"),
        (format!("{header}\n.{payload}.{signature}"), "invalid_request"),
        (format!("{header}.{payload}."), "authentication_failed"),
        (format!("{header}.{payload}.{forged}"), "authentication_failed"),
        (format!("{header}.{payload}.{der}"), "authentication_failed"),
        (format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([0; 64])), "authentication_failed"),
        (format!("{header}.{altered}.{signature}"), "authentication_failed"),
        (other.clone(), "authentication_failed"),
        (sign(&signer, HEADER, &twice), "invalid_request"),
        (sign(&signer, HEADER, &deep_twice), "invalid_request"),
        (sign(&signer, HEADER, &deep), "invalid_request"),
        (sign(&signer, HEADER, &format!("{} {{}}", claims())), "invalid_request"),
        (sign(&signer, HEADER, "null"), "invalid_request"),
        (json!({"payload": good}).to_string(), "invalid_request"),
    ] {
        assert_eq!(refused(settings(), &signer, &body), expected, "{body}");
        assert_eq!(refused(tolerant(), &signer, &body), expected, "tolerant: {body}");
    }
}

#[test]
fn a_token_names_a_thousand_subjects_at_most() {
    let many = |count: usize| {
        let identifiers: Vec<Value> =
            (0..count).map(|i| json!({"format": "opaque", "id": i.to_string()})).collect();
        with("sub_id", json!({"format": "aliases", "identifiers": identifiers}))
    };
    assert_eq!(receive(settings(), &many(1000)).len(), 1000);
    assert_eq!(receive(settings(), &many(1001)), ["invalid_request"]);
}

#[test]
fn bodies_of_another_type_are_rejected() {
    let signer = fresh_key();
    let set = security_event(&signer, &claims());
    let envelope = json!({ "payload": set }).to_string();
    for (body, content_type, strict, lenient) in [
        (&set, Some("application/secevent+jwt"), true, true),
        (&set, Some("Application/SecEvent+JWT; charset=utf-8"), true, true),
        (&set, Some("application/jwt"), false, false),
        (&set, Some("application/json"), false, false),
        (&set, Some("text/plain"), false, false),
        (&set, Some(""), false, false),
        (&set, None, false, false),
        (&envelope, Some("application/json"), false, true),
        (&envelope, Some("application/secevent+jwt"), false, false),
        (&"{}".to_owned(), Some("application/json"), false, false),
        (&r#"{"payload":7}"#.to_owned(), Some("application/json"), false, false),
        (&"[]".to_owned(), Some("application/json"), false, false),
    ] {
        for (settings, accepted) in [(settings(), strict), (tolerant(), lenient)] {
            let transmitter = transmitter(settings, &signer);
            let received = transmitter.receive(body.as_bytes(), content_type, KeysAsked::Nothing, at(NOW));
            match received {
                Ok(_) => assert!(accepted, "{content_type:?} {body}"),
                Err(Unaccepted::Refused(refusal)) => {
                    assert!(!accepted, "{content_type:?} {body}");
                    assert_eq!(refusal.code, Code::InvalidRequest);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn without_keys_nothing_is_judged() {
    let token = security_event(&fresh_key(), &claims());
    let settings = settings();
    let empty = KeyStore::new(settings.keys.clone(), Metrics::new().unwrap());
    let received =
        Transmitter::new(settings.clone(), empty).receive(token.as_bytes(), SET, KeysAsked::Nothing, at(NOW));
    assert_eq!(received, Err(Unaccepted::NoKeys));

    // Keys that were good and are too old are none.
    let old = KeyStore::new(settings.keys.clone(), Metrics::new().unwrap());
    let signer = fresh_key();
    let day = Duration::from_secs(86_401);
    let loaded = Now { wall: at(NOW).minus(day), monotonic: Monotonic::now().minus(day) };
    old.accept(key_set(&signer).into(), loaded).unwrap();
    let token = security_event(&signer, &claims());
    let received =
        Transmitter::new(settings, old).receive(token.as_bytes(), SET, KeysAsked::Nothing, at(NOW));
    assert_eq!(received, Err(Unaccepted::NoKeys));
}
