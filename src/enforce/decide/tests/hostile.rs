//! Tokens that an attacker would like to have accepted. Each is signed with a real key unless that is the
//! point.

#![expect(clippy::too_many_lines, reason = "a table is as long as it has rows")]

use serde_json::{Value, json};

use crate::enforce::decide::{Enforcer, Proof};
use crate::enforce::denial::Reason;
use crate::enforce::testing::{
    AUDIENCE, ISSUER, NOW, OTHER, SECRET, SECRET_ISSUER, SIGNERS, Signer, TestRequest, b64, enforcer, header,
    issuers, payload, route, token, token_of, without,
};
use crate::jose::jws::decode;

fn gate() -> Enforcer {
    enforcer(issuers(), vec![route("/{*rest}")])
}

pub(super) fn check(rows: &[(String, Reason)]) {
    let gate = gate();
    for (token, expected) in rows {
        let request = TestRequest::new(&gate, "/x").token(token);
        let first = request.decide();
        for attempt in ["second", "third"] {
            assert_eq!(request.reason(), Some(*expected), "{attempt}: {}", readable(token));
            if first.proof == Proof::None {
                let again = request.decide();
                assert_eq!(format!("{again:?}"), format!("{first:?}"), "{attempt}: {}", readable(token));
            }
        }
    }
}

fn readable(token: &str) -> String {
    let part = |part: &str| match decode(part.as_bytes()) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => part.to_owned(),
    };
    token.split('.').take(2).map(part).collect::<Vec<_>>().join(" . ")
}

#[test]
fn the_token_that_all_others_are_made_from_is_good() {
    let gate = gate();
    let texts = |signer, alg: &str, kid: &str| {
        token_of(
            signer,
            &header(json!({"alg": alg, "kid": kid})).to_string(),
            &payload(json!({})).to_string(),
        )
    };
    let of_secret = payload(json!({"iss": SECRET_ISSUER})).to_string();
    let good = [
        token(&payload(json!({}))),
        texts(&SIGNERS.es384, "ES384", "es384"),
        texts(&SIGNERS.ed25519, "EdDSA", "ed"),
        texts(&SIGNERS.rs256, "RS256", "rs"),
        texts(&SIGNERS.ps256, "PS256", "ps"),
        token_of(&SIGNERS.secret, &json!({"alg": "HS256"}).to_string(), &of_secret),
        token_of(&SIGNERS.secret, &header(json!({"alg": "HS256"})).to_string(), &of_secret),
        token_of(
            &SIGNERS.es256,
            &without(header(json!({})), "kid").to_string(),
            &payload(json!({})).to_string(),
        ),
        token_of(
            &SIGNERS.es256,
            &without(header(json!({})), "typ").to_string(),
            &payload(json!({})).to_string(),
        ),
        token_of(
            &SIGNERS.es256,
            &header(json!({"typ": "AT+JWT"})).to_string(),
            &payload(json!({})).to_string(),
        ),
        token_of(
            &SIGNERS.es256,
            &header(json!({"typ": "jwt", "b64": true})).to_string(),
            &payload(json!({})).to_string(),
        ),
        // Keys embedded in a token are ignored.
        token_of(
            &SIGNERS.es256,
            &header(json!({"jwk": {"kty": "EC"}, "jku": "https://evil.example/", "x5u": 1, "x5c": ["x"]}))
                .to_string(),
            &payload(json!({})).to_string(),
        ),
        token(&payload(json!({"aud": ["someone", "api"]}))),
        token(&payload(json!({"iat": NOW as f64 - 0.5, "exp": NOW as f64 + 0.25, "nbf": NOW as f64 - 1.5}))),
        token(&payload(json!({"iat": NOW + 30, "nbf": NOW + 30}))),
        token(&payload(json!({"iat": NOW - 100, "exp": NOW - 29}))),
        token(&payload(json!({"iat": NOW - 10, "exp": NOW - 10 + 86_400}))),
        token(&payload(json!({"scope": [], "roles": "", "tenant": null, "role_version": 0}))),
        // `null` counts as absent, except for `cnf`.
        token(&payload(json!({
            "scope": null, "roles": null, "client_id": null, "tenant": null, "role_version": null, "jti": null,
            "nbf": null,
        }))),
        token(&without(without(without(payload(json!({})), "jti"), "scope"), "client_id")),
    ];
    for token in good {
        assert_eq!(TestRequest::new(&gate, "/x").token(&token).reason(), None, "{}", readable(&token));
    }
}

#[test]
fn claims_of_the_wrong_form_or_value_are_rejected() {
    use Reason::{
        BadClaim, Expired, IssuedInFuture, MissingClaim, NotYetValid, TooLongLived, UnknownIssuer,
        WrongAudience, WrongType,
    };
    let changed: Vec<(Value, Reason)> = vec![
        // exp (CVE-2026-25537: a wrong type does not count as absent)
        (json!({"exp": (NOW + 600).to_string()}), BadClaim),
        (json!({"exp": null}), MissingClaim),
        (json!({"exp": true}), BadClaim),
        (json!({"exp": []}), BadClaim),
        (json!({"exp": [NOW + 600]}), BadClaim),
        (json!({"exp": {}}), BadClaim),
        (json!({"exp": 1e308}), BadClaim),
        (json!({"exp": u64::MAX}), BadClaim),
        (json!({"exp": (NOW + 600) * 1000}), BadClaim),
        (json!({"exp": -1e300}), BadClaim),
        (json!({"exp": NOW - 30}), Expired),
        (json!({"exp": NOW - 31, "iat": NOW}), Expired),
        (json!({"exp": NOW as f64 - 30.001}), Expired),
        (json!({"exp": 0}), Expired),
        (json!({"exp": -1}), Expired),
        (json!({"exp": NOW - 3600, "iat": NOW - 7200}), Expired),
        (json!({"exp": NOW + 10, "iat": NOW + 20}), BadClaim),
        (json!({"exp": NOW, "iat": NOW}), BadClaim),
        (json!({"exp": NOW - 10 + 86_401}), TooLongLived),
        (json!({"exp": 9_999_999_999_i64}), TooLongLived),
        (json!({"exp": 253_402_300_799_i64}), TooLongLived),
        (json!({"exp": 253_402_300_800_i64}), BadClaim),
        // iat
        (json!({"iat": (NOW - 10).to_string()}), BadClaim),
        (json!({"iat": null}), MissingClaim),
        (json!({"cnf": null}), BadClaim),
        (json!({"iat": false}), BadClaim),
        (json!({"iat": {}}), BadClaim),
        (json!({"iat": 1e300}), BadClaim),
        (json!({"iat": NOW + 31}), IssuedInFuture),
        (json!({"iat": NOW as f64 + 30.5}), IssuedInFuture),
        (json!({"iat": NOW + 3600, "exp": NOW + 7200}), IssuedInFuture),
        (json!({"iat": 0}), TooLongLived),
        (json!({"iat": -1}), TooLongLived),
        // nbf
        (json!({"nbf": NOW.to_string()}), BadClaim),
        (json!({"nbf": []}), BadClaim),
        (json!({"nbf": 1e300}), BadClaim),
        (json!({"nbf": NOW + 31}), NotYetValid),
        (json!({"nbf": NOW + 31, "iat": NOW + 31}), NotYetValid),
        (json!({"nbf": NOW as f64 + 30.5}), NotYetValid),
        // iss
        (json!({"iss": "https://idp.example"}), UnknownIssuer),
        (json!({"iss": "https://IDP.example/"}), UnknownIssuer),
        (json!({"iss": "https://idp.example/ "}), UnknownIssuer),
        (json!({"iss": "https://idp.example/x"}), UnknownIssuer),
        (json!({"iss": "http://idp.example/"}), UnknownIssuer),
        (json!({"iss": "https://idp.example:443/"}), UnknownIssuer),
        (json!({"iss": "https://evil.example/"}), UnknownIssuer),
        (json!({"iss": ""}), UnknownIssuer),
        (json!({"iss": [ISSUER]}), BadClaim),
        (json!({"iss": [ISSUER, "https://evil.example/"]}), BadClaim),
        (json!({"iss": null}), BadClaim),
        (json!({"iss": 1}), BadClaim),
        (json!({"iss": {"iss": ISSUER}}), BadClaim),
        // events (RFC 8417 §2.2)
        (json!({"events": {}}), WrongType),
        (json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}), WrongType),
        // aud
        (json!({"aud": "https://other.example"}), WrongAudience),
        (json!({"aud": "https://api.example/"}), WrongAudience),
        (json!({"aud": "https://API.example"}), WrongAudience),
        (json!({"aud": "https://api.example https://x"}), WrongAudience),
        (json!({"aud": ""}), WrongAudience),
        (json!({"aud": []}), WrongAudience),
        (json!({"aud": ["x", "y"]}), WrongAudience),
        (json!({"aud": null}), WrongAudience),
        (json!({"aud": 5}), BadClaim),
        (json!({"aud": {"0": AUDIENCE}}), BadClaim),
        (json!({"aud": [AUDIENCE, 5]}), BadClaim),
        (json!({"aud": [[AUDIENCE]]}), BadClaim),
        (json!({"aud": [null]}), BadClaim),
        (json!({"aud": true}), BadClaim),
        // subject
        (json!({"sub": null}), MissingClaim),
        (json!({"sub": 7}), BadClaim),
        (json!({"sub": ["alice"]}), BadClaim),
        (json!({"sub": {"name": "alice"}}), BadClaim),
        (json!({"sub": "x".repeat(4097)}), BadClaim),
        (json!({"sub": "é".repeat(683)}), BadClaim),
        (json!({"jti": 7}), BadClaim),
        (json!({"jti": ["a"]}), BadClaim),
        (json!({"jti": ""}), BadClaim),
        (json!({"client_id": 7}), BadClaim),
        (json!({"client_id": ["app"]}), BadClaim),
        // scopes and roles
        (json!({"scope": 7}), BadClaim),
        (json!({"scope": true}), BadClaim),
        (json!({"scope": {"read": true}}), BadClaim),
        (json!({"scope": ["read", 7]}), BadClaim),
        (json!({"scope": [["read"]]}), BadClaim),
        (json!({"roles": 7}), BadClaim),
        (json!({"roles": {"admin": true}}), BadClaim),
        (json!({"roles": ["admin", null]}), BadClaim),
        (json!({"roles": vec!["administrator"; 400]}), BadClaim),
        (json!({"roles": ["viewer\u{0}admin"]}), BadClaim),
        (json!({"scope": "read\u{0}write"}), BadClaim),
        (json!({"role_version": "7"}), BadClaim),
        (json!({"role_version": -1}), BadClaim),
        (json!({"role_version": 1.5}), BadClaim),
        // confirmations that cannot be checked (RFC 7800, RFC 8705, RFC 9449)
        (json!({"cnf": "x"}), BadClaim),
        (json!({"cnf": {}}), BadClaim),
        (json!({"cnf": {"jkt": b64(&[7; 32])}}), Reason::UnprovenToken),
        (json!({"cnf": {"jkt": b64(&[7; 31])}}), BadClaim),
        (json!({"cnf": {"jkt": b64(&[7; 33])}}), BadClaim),
        (json!({"cnf": {"jkt": 7}}), BadClaim),
        (json!({"cnf": {"jkt": b64(&[7; 32]), "kid": "x"}}), BadClaim),
        (json!({"cnf": {"jwk": {"kty": "EC"}}}), BadClaim),
        (json!({"cnf": {"x5t#S256": 7}}), BadClaim),
        (json!({"cnf": {"x5t#S256": ""}}), BadClaim),
        (json!({"cnf": {"x5t#S256": b64(&[7; 31])}}), BadClaim),
        (json!({"cnf": {"x5t#S256": b64(&[7; 33])}}), BadClaim),
        (json!({"cnf": {"x5t#S256": format!("{}=", b64(&[7; 32]))}}), BadClaim),
        (json!({"cnf": {"x5t#S256": b64(&[7; 32]), "jkt": b64(&[7; 32])}}), Reason::CertificateMismatch),
        (json!({"cnf": {"x5t#S256": b64(&[7; 32])}}), Reason::CertificateMismatch),
    ];
    let mut rows: Vec<_> =
        changed.into_iter().map(|(changes, reason)| (token(&payload(changes)), reason)).collect();
    for (absent, reason) in [
        ("exp", MissingClaim),
        ("iat", MissingClaim),
        ("sub", MissingClaim),
        ("iss", UnknownIssuer),
        ("aud", WrongAudience),
    ] {
        rows.push((token(&without(payload(json!({})), absent)), reason));
    }
    assert!(rows.len() >= 100, "{}", rows.len());
    check(&rows);
}

#[test]
fn headers_that_ask_for_trust() {
    use Reason::{BadAlgorithm, BadClaim, BadSignature, UnknownKey, WrongType};
    let claims = payload(json!({})).to_string();
    let hmac_with = |key: &[u8]| Signer::hmac(key);
    let (es_point, rs_der) = (SIGNERS.es256.public(), SIGNERS.rs256.public());
    let sign = |signer: &Signer, changes: Value| token_of(signer, &header(changes).to_string(), &claims);
    let good = &SIGNERS.es256;
    let own_key = json!({"kty": "EC", "crv": "P-256", "kid": "es", "x": b64(&es_point[1..33]), "y": b64(&es_point[33..])});
    let rows = vec![
        // alg (RFC 8725 §2.1, §3.1)
        (sign(good, json!({"alg": "none"})), BadAlgorithm),
        (sign(good, json!({"alg": "None"})), BadAlgorithm),
        (sign(good, json!({"alg": "nOnE"})), BadAlgorithm),
        (sign(good, json!({"alg": "NONE"})), BadAlgorithm),
        (sign(good, json!({"alg": ""})), BadAlgorithm),
        (sign(good, json!({"alg": null})), BadAlgorithm),
        (sign(good, json!({"alg": 7})), BadAlgorithm),
        (sign(good, json!({"alg": ["ES256"]})), BadAlgorithm),
        (sign(good, json!({"alg": "es256"})), BadAlgorithm),
        (sign(good, json!({"alg": "ES256 "})), BadAlgorithm),
        (sign(good, json!({"alg": "ES256K"})), BadAlgorithm),
        (sign(good, json!({"alg": "ES512"})), BadAlgorithm),
        (sign(good, json!({"alg": "RS512"})), BadAlgorithm),
        (sign(good, json!({"alg": "RS1"})), BadAlgorithm),
        (sign(good, json!({"alg": "dir", "enc": "A256GCM"})), BadAlgorithm),
        (token_of(good, &without(header(json!({})), "alg").to_string(), &claims), BadAlgorithm),
        // The public key as a secret (RFC 8725 §2.1), and the secret of another issuer.
        (sign(&hmac_with(&es_point), json!({"alg": "HS256"})), BadAlgorithm),
        (sign(&hmac_with(&rs_der), json!({"alg": "HS256", "kid": "rs"})), BadAlgorithm),
        (sign(&hmac_with(b""), json!({"alg": "HS256"})), BadAlgorithm),
        (sign(&hmac_with(SECRET), json!({"alg": "HS256"})), BadAlgorithm),
        // An allowed algorithm for a key that it does not fit.
        (sign(good, json!({"alg": "ES384"})), BadAlgorithm),
        (sign(good, json!({"alg": "RS256"})), BadAlgorithm),
        (sign(good, json!({"kid": "rs"})), BadAlgorithm),
        (sign(&SIGNERS.rs256, json!({"alg": "RS256", "kid": "ps"})), BadAlgorithm),
        (sign(&SIGNERS.ps256, json!({"alg": "PS256", "kid": "rs"})), BadAlgorithm),
        (sign(&SIGNERS.ed25519, json!({"alg": "EdDSA", "kid": "es"})), BadAlgorithm),
        // Signatures of other keys.
        (sign(&SIGNERS.stranger, json!({})), BadSignature),
        (sign(&SIGNERS.other, json!({})), BadSignature),
        (sign(&SIGNERS.es384, json!({})), BadSignature),
        (sign(&SIGNERS.rs256, json!({})), BadSignature),
        (sign(&SIGNERS.ps256, json!({"alg": "RS256", "kid": "rs"})), BadSignature),
        (sign(&SIGNERS.rs256, json!({"alg": "PS256", "kid": "ps"})), BadSignature),
        (token_of(&SIGNERS.stranger, &without(header(json!({})), "kid").to_string(), &claims), BadSignature),
        // typ (RFC 8725 §3.11)
        (sign(good, json!({"typ": "secevent+jwt"})), WrongType),
        (sign(good, json!({"typ": "application/jwt"})), WrongType),
        (sign(good, json!({"typ": "dpop+jwt"})), WrongType),
        (sign(good, json!({"typ": "logout+jwt"})), WrongType),
        (sign(good, json!({"typ": "id_token"})), WrongType),
        (sign(good, json!({"typ": "JOSE"})), WrongType),
        (sign(good, json!({"typ": "at+jwt "})), WrongType),
        (sign(good, json!({"typ": ""})), WrongType),
        (sign(good, json!({"typ": null})), WrongType),
        (sign(good, json!({"typ": 7})), WrongType),
        (sign(good, json!({"typ": ["at+jwt"]})), WrongType),
        // kid
        (sign(good, json!({"kid": "nobody"})), UnknownKey),
        (sign(good, json!({"kid": ""})), UnknownKey),
        (sign(good, json!({"kid": "ES"})), UnknownKey),
        (sign(good, json!({"kid": "es "})), UnknownKey),
        (sign(good, json!({"kid": "../../dev/null"})), UnknownKey),
        (sign(good, json!({"kid": "es' OR '1'='1"})), UnknownKey),
        (sign(good, json!({"kid": "x".repeat(8000)})), UnknownKey),
        (sign(&SIGNERS.stranger, json!({"kid": "others"})), UnknownKey),
        (sign(good, json!({"kid": 7})), BadClaim),
        (sign(good, json!({"kid": null})), BadClaim),
        (sign(good, json!({"kid": ["es"]})), BadClaim),
        // Keys embedded in the token.
        (sign(&SIGNERS.stranger, json!({"jwk": own_key.clone()})), BadSignature),
        (sign(&SIGNERS.stranger, json!({"jku": "https://evil.example/keys"})), BadSignature),
        (sign(&SIGNERS.stranger, json!({"x5u": "https://evil.example/cert", "x5c": ["MIIB"]})), BadSignature),
        (sign(&SIGNERS.stranger, json!({"kid": "mine", "jwk": own_key})), UnknownKey),
        // Extensions.
        (sign(good, json!({"crit": ["exp"], "exp": 1})), BadClaim),
        (sign(good, json!({"crit": []})), BadClaim),
        (sign(good, json!({"crit": null})), BadClaim),
        (sign(good, json!({"crit": ["b64"], "b64": true})), BadClaim),
        (sign(good, json!({"b64": false})), BadClaim),
        (sign(good, json!({"b64": "true"})), BadClaim),
    ];
    assert!(rows.len() >= 60, "{}", rows.len());
    check(&rows);
}

#[test]
fn one_issuers_key_proves_nothing_for_another() {
    use Reason::{BadAlgorithm, BadSignature, UnknownKey};
    let of = |iss: &str| payload(json!({"iss": iss})).to_string();
    let rows = [
        (token_of(&SIGNERS.es256, &header(json!({})).to_string(), &of(OTHER)), BadSignature),
        (token_of(&SIGNERS.other, &header(json!({})).to_string(), &of(ISSUER)), BadSignature),
        (token_of(&SIGNERS.stranger, &header(json!({"kid": "others"})).to_string(), &of(ISSUER)), UnknownKey),
        (token_of(&SIGNERS.es256, &header(json!({})).to_string(), &of(SECRET_ISSUER)), BadAlgorithm),
        (token_of(&SIGNERS.secret, &json!({"alg": "HS256"}).to_string(), &of(OTHER)), BadAlgorithm),
        (
            token_of(&Signer::hmac(b"guess"), &json!({"alg": "HS256"}).to_string(), &of(SECRET_ISSUER)),
            BadSignature,
        ),
    ];
    check(&rows);
}
