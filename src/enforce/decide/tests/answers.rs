//! Routes, order, shadowing, keys that come and go, and what a proof is worth later.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm::ES256;
use serde_json::json;

use crate::client::Client;
use crate::enforce::decide::{
    Ask as Question, Asked, Claimed, Enforcer, Permit, Proof, Request, TrustedIssuer, Verdict,
};
use crate::enforce::denial::Reason;
use crate::enforce::policy::{Mode, Requirement, RouteSettings};
use crate::enforce::testing::{
    ISSUER, NOW, SIGNERS, Signer, TestRequest, b64, enforcer, header, issuers, key, key_settings, now,
    payload, route, rules, token, token_of,
};
use crate::enforce::token::IssuerIndex;
use crate::keys::refresh::spawn_refresher;
use crate::keys::set::KeySet;
use crate::keys::store::{KeyStore, WantedKey};
use crate::keys::{KeySource, Settings};
use crate::metrics::Metrics;
use crate::shutdown;
use crate::time::{Now, Timestamp};

fn gate() -> Enforcer {
    let needs = |scope: &str, role: &str| Requirement {
        scopes: vec![scope.to_owned()],
        any_role: vec![role.to_owned()],
        ..Requirement::default()
    };
    let routes = vec![
        RouteSettings { requirement: needs("read:deals", "editor"), ..route("/deals/{*rest}") },
        RouteSettings { requirement: needs("write:deals", "editor"), ..route("/scope") },
        RouteSettings { requirement: needs("read:deals", "admin"), ..route("/role") },
        RouteSettings { anonymous: true, ..route("/open") },
        RouteSettings { requirement: needs("write:deals", "admin"), mode: Mode::Shadow, ..route("/shadow") },
        RouteSettings { methods: vec![http::Method::POST], ..route("/post") },
    ];
    enforcer(issuers(), routes)
}

fn allowed(ask: &TestRequest<'_>) -> Permit {
    let judgement = ask.decide();
    let Verdict::Allow(permit) = judgement.verdict else { panic!("not allowed: {judgement:?}") };
    permit
}

#[test]
fn a_good_token_gets_a_permit_with_everything_forward_needs() {
    let gate = gate();
    let permit = allowed(&TestRequest::new(&gate, "/de%61ls/7?x=//..").token(&token(&payload(json!({})))));
    assert_eq!((permit.route().index(), &**permit.route().pattern()), (0, "/deals/{*rest}"));
    assert_eq!(permit.target().as_bytes(), "/de%61ls/7?x=//..");
    assert_eq!(permit.shadow(), None);
    let identity = &permit.token().expect("a token").identity.sent;
    let shown: Vec<_> =
        identity.iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("ASCII"))).collect();
    let expected = [
        "x-auth-subject: alice",
        "x-auth-client: app",
        "x-auth-scope: read:deals read:users",
        "x-auth-roles: editor",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_first_thing_wrong_is_the_reason() {
    let gate = gate();
    let good = token(&payload(json!({})));
    let forged = token_of(&SIGNERS.stranger, &header(json!({})).to_string(), &payload(json!({})).to_string());
    let table: Vec<(&str, Option<String>, Option<Reason>)> = vec![
        ("/deals//7", Some(format!("Bearer {good}")), Some(Reason::BadTarget)),
        ("/nowhere", None, Some(Reason::NoRouteNoToken)),
        ("/nowhere", Some("Basic eDp5".to_owned()), Some(Reason::NoRouteNoToken)),
        ("/nowhere", Some(format!("Bearer {good}")), Some(Reason::NoRoute)),
        // The token of an unmatched request is not verified.
        ("/nowhere", Some(format!("Bearer {forged}")), Some(Reason::NoRoute)),
        ("/nowhere", Some("bearer".to_owned()), Some(Reason::NoRoute)),
        ("/post", Some(format!("Bearer {good}")), Some(Reason::NoRoute)),
        ("/deals", None, Some(Reason::Missing)),
        ("/deals?access_token=x", None, Some(Reason::Missing)),
        ("/deals", Some("Basic eDp5".to_owned()), Some(Reason::Missing)),
        ("/deals", Some("Bearer a b".to_owned()), Some(Reason::Malformed)),
        ("/deals", Some("Bearer opaque".to_owned()), Some(Reason::NotJwt)),
        ("/deals?access_token=x", Some(format!("Bearer {good}")), Some(Reason::Ambiguous)),
        ("/scope", Some(format!("Bearer {forged}")), Some(Reason::BadSignature)),
        ("/scope", Some(format!("Bearer {good}")), Some(Reason::InsufficientScope)),
        ("/role", Some(format!("Bearer {good}")), Some(Reason::InsufficientRole)),
        ("/open", None, None),
        ("/open?access_token=x", None, None),
        ("/open", Some("Basic eDp5".to_owned()), None),
        ("/open", Some(format!("Bearer {good}")), None),
        ("/open", Some(format!("Bearer {forged}")), Some(Reason::BadSignature)),
        ("/open", Some("Bearer opaque".to_owned()), Some(Reason::NotJwt)),
        ("/open", Some("Bearer".to_owned()), Some(Reason::Malformed)),
    ];
    for (path, authorization, expected) in table {
        let ask = TestRequest { authorization, ..TestRequest::new(&gate, path) };
        assert_eq!(ask.reason(), expected, "{path} {:?}", ask.authorization);
    }
}

#[test]
fn several_faults_have_one_reason_in_the_documented_order() {
    let gate = gate();
    let worst = json!({
        "iss": "https://evil.example/", "aud": "x", "sub": null, "exp": NOW - 100, "nbf": NOW + 100, "iat": NOW - 200,
        "roles": 7, "cnf": {},
    });
    let repairs = [
        (json!({"iss": ISSUER}), json!({}), Reason::WrongType),
        (json!({}), json!({"typ": "JWT"}), Reason::BadAlgorithm),
        (json!({}), json!({"alg": "ES256"}), Reason::Expired),
        (json!({"exp": NOW + 100}), json!({}), Reason::NotYetValid),
        (json!({"nbf": NOW}), json!({}), Reason::WrongAudience),
        (json!({"aud": ["api"]}), json!({}), Reason::MissingClaim),
        (json!({"sub": "alice"}), json!({}), Reason::UnknownKey),
        (json!({}), json!({"kid": "es"}), Reason::BadSignature),
    ];
    let (mut claims, mut head) =
        (payload(worst), header(json!({"typ": "x", "alg": "none", "kid": "nobody"})));
    let ask = |signer: &Signer, head: &serde_json::Value, claims: &serde_json::Value| {
        TestRequest::new(&gate, "/scope")
            .token(&token_of(signer, &head.to_string(), &claims.to_string()))
            .reason()
    };
    assert_eq!(ask(&SIGNERS.stranger, &head, &claims), Some(Reason::UnknownIssuer));
    for (claim, parameter, expected) in repairs {
        claims.as_object_mut().expect("an object").extend(claim.as_object().expect("an object").clone());
        head.as_object_mut().expect("an object").extend(parameter.as_object().expect("an object").clone());
        assert_eq!(ask(&SIGNERS.stranger, &head, &claims), Some(expected));
    }
    assert_eq!(ask(&SIGNERS.es256, &head, &claims), Some(Reason::BadClaim));
}

#[test]
fn a_denial_names_the_scopes_the_route_requires() {
    let gate = gate();
    for path in ["/scope", "/role"] {
        let judgement = TestRequest::new(&gate, path).token(&token(&payload(json!({})))).decide();
        let Verdict::Deny(denial) = judgement.verdict else { panic!("not denied: {judgement:?}") };
        assert!(denial.scope.is_some_and(|s| s.ends_with(":deals")), "{path}");
    }
}

#[test]
fn shadow_routes_let_everything_through_and_say_what_they_would_have_said() {
    let gate = gate();
    let good = token(&payload(json!({})));
    let ruler = token(&payload(json!({"scope": "write:deals", "roles": ["admin"]})));
    let expired = token(&payload(json!({"exp": NOW - 100, "iat": NOW - 200})));
    let table = [
        ("/shadow", None, Some(Reason::Missing)),
        ("/shadow", Some("Bearer a b".to_owned()), Some(Reason::Malformed)),
        ("/shadow", Some("Bearer opaque".to_owned()), Some(Reason::NotJwt)),
        ("/shadow", Some(format!("Bearer {expired}")), Some(Reason::Expired)),
        ("/shadow", Some(format!("Bearer {good}")), Some(Reason::InsufficientScope)),
        ("/shadow?access_token=1", Some(format!("Bearer {ruler}")), Some(Reason::Ambiguous)),
        ("/shadow", Some(format!("Bearer {ruler}")), None),
    ];
    for (path, authorization, expected) in table {
        let permit = allowed(&TestRequest { authorization, ..TestRequest::new(&gate, path) });
        assert_eq!(permit.shadow().map(|denial| denial.reason), expected, "{path}");
        assert_eq!(
            permit.token().is_some(),
            expected.is_none(),
            "{path}: no identity for who would be refused"
        );
    }
    assert_eq!(TestRequest::new(&gate, "/shadow//").reason(), Some(Reason::BadTarget));
}

#[test]
fn a_bound_token_needs_its_certificate_on_every_request() {
    let gate = gate();
    let bound = token(&payload(json!({"cnf": {"x5t#S256": b64(&[7; 32])}})));
    for (certificate, expected) in [
        (Some([7; 32]), None),
        (None, Some(Reason::CertificateMismatch)),
        (Some([8; 32]), Some(Reason::CertificateMismatch)),
        (Some([7; 32]), None),
    ] {
        let ask = TestRequest { certificate, ..TestRequest::new(&gate, "/deals").token(&bound) };
        assert_eq!(ask.reason(), expected, "{certificate:?}");
    }
    let free = TestRequest {
        certificate: Some([8; 32]),
        ..TestRequest::new(&gate, "/deals").token(&token(&payload(json!({}))))
    };
    assert_eq!(free.reason(), None);
}

#[test]
fn a_proof_is_remembered_and_a_verdict_is_not() {
    let gate = gate();
    let token = token(&payload(json!({"nbf": NOW - 5})));
    let at = |offset: i64| TestRequest {
        at: Timestamp::from_secs(NOW + offset),
        ..TestRequest::new(&gate, "/deals").token(&token)
    };
    let first = at(0).decide();
    assert_eq!(
        (first.proof, first.claimed),
        (
            Proof::Fresh,
            Some(Claimed { issuer: IssuerIndex(0), kid: Some("es".into()), client: Some("app".into()) })
        )
    );
    for (offset, expected) in [
        (0, None),
        (629, None),
        (630, Some(Reason::Expired)),
        (-35, None),
        (-36, Some(Reason::NotYetValid)),
        (100_000, Some(Reason::Expired)),
        (1, None),
    ] {
        let again = at(offset);
        assert_eq!(again.reason(), expected, "{offset}");
        let judgement = again.decide();
        assert_eq!(judgement.proof, Proof::Cached, "{offset}");
        assert!(judgement.token.is_some_and(|token| token.issuer == IssuerIndex(0)));
    }
    let elsewhere = TestRequest::new(&gate, "/role").token(&token).decide();
    assert_eq!(elsewhere.proof, Proof::Cached);
    assert!(matches!(elsewhere.verdict, Verdict::Deny(denial) if denial.reason == Reason::InsufficientRole));
}

#[test]
fn refused_tokens_leave_no_proof_and_no_name() {
    let gate = gate();
    let forged = token_of(
        &SIGNERS.stranger,
        &header(json!({"kid": "k\u{e9}\n\"x"})).to_string(),
        &payload(json!({})).to_string(),
    );
    for _ in 0..2 {
        let judgement = TestRequest::new(&gate, "/deals").token(&forged).decide();
        assert!(judgement.token.is_none());
        assert_eq!(judgement.proof, Proof::None);
        assert_eq!(judgement.claimed.and_then(|claimed| claimed.kid).as_deref(), Some("k??\"x"));
    }
}

#[test]
fn a_withdrawn_key_takes_its_proofs_along() {
    let with = |signer| KeySet::new(vec![key("es", ES256, signer)]);
    let metrics = Metrics::new().expect("instruments");
    let keys = KeyStore::fixed(key_settings(ISSUER, &[ES256]), with(&SIGNERS.es256), metrics);
    let issuer = TrustedIssuer { rules: rules(ISSUER, &[ES256]), keys: Arc::clone(&keys) };
    let gate = enforcer(vec![issuer], vec![route("/{*rest}")]);
    let token = token(&payload(json!({})));
    let ask = TestRequest::new(&gate, "/x").token(&token);
    assert_eq!((ask.decide().proof, ask.decide().proof), (Proof::Fresh, Proof::Cached));
    keys.install(with(&SIGNERS.other));
    assert_eq!(ask.reason(), Some(Reason::BadSignature));
    keys.install(with(&SIGNERS.es256));
    assert_eq!((ask.decide().proof, ask.decide().proof), (Proof::Fresh, Proof::Cached));
    keys.install(KeySet::new(vec![key("new", ES256, &SIGNERS.es256)]));
    let again = TestRequest { asked: Asked::NOTHING.and(&unknown_key("es")), ..ask };
    assert_eq!(again.reason(), Some(Reason::UnknownKey));
}

/// The question asked for a token that names this key.
fn unknown_key(kid: &str) -> Question {
    let (issuer, wanted) = (IssuerIndex(0), WantedKey::key(kid));
    Question::Keys { issuer, wanted, otherwise: Reason::UnknownKey }
}

/// A store that has loaded a JWK Set with the key `es`, as a refresher would.
fn fetched() -> (Arc<KeyStore>, Enforcer) {
    let keys = KeyStore::new(key_settings(ISSUER, &[ES256]), Metrics::new().expect("instruments"));
    let issuer = TrustedIssuer { rules: rules(ISSUER, &[ES256]), keys: Arc::clone(&keys) };
    (keys, enforcer(vec![issuer], vec![route("/{*rest}")]))
}

fn jwks(kid: &str, signer: &Signer) -> bytes::Bytes {
    let point = signer.public();
    let key =
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&point[1..33]), "y": b64(&point[33..])});
    json!({"keys": [key]}).to_string().into_bytes().into()
}

#[test]
fn without_usable_keys_nothing_is_let_through_and_garbage_is_still_garbage() {
    let (keys, gate) = fetched();
    let good = token(&payload(json!({})));
    let expired = token(&payload(json!({"exp": NOW - 100, "iat": NOW - 200})));
    let ask = TestRequest::new(&gate, "/x").token(&good);
    assert_eq!(ask.reason(), Some(Reason::KeysUnavailable));
    for (token, reason) in [("opaque", Reason::NotJwt), (&expired, Reason::Expired)] {
        assert_eq!(TestRequest::new(&gate, "/x").token(token).reason(), Some(reason));
    }
    keys.accept(jwks("es", &SIGNERS.es256), Now::at_millis(now().as_millis())).expect("a sound set");
    assert_eq!((ask.decide().proof, ask.decide().proof), (Proof::Fresh, Proof::Cached));
    // With a lifetime longer than the keys stay fresh.
    let long = token(&payload(json!({"iat": NOW, "exp": NOW + 86_400})));
    let stale = now().plus(Duration::from_secs(86_401));
    assert_eq!(TestRequest::new(&gate, "/x").token(&long).reason(), None);
    let late = TestRequest { at: stale, ..TestRequest::new(&gate, "/x").token(&long) };
    assert_eq!(late.reason(), Some(Reason::KeysUnavailable));
    assert_eq!(
        TestRequest { at: stale, ..TestRequest::new(&gate, "/x").token(&good) }.reason(),
        Some(Reason::Expired)
    );
}

/// An issuer whose key `es` was read from a file, and the task that reads it again on request.
struct Refreshed {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    keys: Arc<KeyStore>,
    gate: Enforcer,
    refresher: tokio::task::JoinHandle<()>,
    _trigger: shutdown::Trigger,
}

async fn refreshed() -> Refreshed {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    std::fs::write(&path, jwks("es", &SIGNERS.es256)).expect("a file");
    let century = Duration::from_secs(100 * 365 * 86_400);
    let settings = Settings {
        source: KeySource::File(path.clone()),
        max_stale: century,
        ..key_settings(ISSUER, &[ES256])
    };
    let keys = KeyStore::new(settings, Metrics::new().expect("instruments"));
    let gate = enforcer(
        vec![TrustedIssuer { rules: rules(ISSUER, &[ES256]), keys: Arc::clone(&keys) }],
        vec![route("/{*rest}")],
    );
    let (mut loaded, (trigger, shutdown)) = (keys.last_good(), shutdown::channel());
    let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let refresher =
        spawn_refresher(Arc::clone(&keys), Client::new(Arc::new(tls.with_no_client_auth())), shutdown);
    loaded.changed().await.expect("a first set");
    Refreshed { _folder: folder, path, keys, gate, refresher, _trigger: trigger }
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once() {
    let Refreshed { path, keys, gate, refresher, .. } = &refreshed().await;
    let head = header(json!({"kid": "next"})).to_string();
    let token = token_of(&SIGNERS.stranger, &head, &payload(json!({})).to_string());
    let first = TestRequest::new(gate, "/x").token(&token);
    let Verdict::Ask(question) = first.decide().verdict else { panic!("not asked") };
    assert_eq!(question, unknown_key("next"));
    let explained = |ask: &TestRequest<'_>| ask.explain().expect("a bearer token").ask;
    assert_eq!(explained(&first), Some(question.clone()), "an explanation asks for it, too");
    let second = TestRequest { asked: first.asked.and(&question), ..first };
    assert_eq!(explained(&second), None);
    assert_eq!(second.reason(), Some(Reason::UnknownKey));
    // A token rejected without keys triggers no fetch.
    let expired = payload(json!({"exp": NOW - 100, "iat": NOW - 200})).to_string();
    let cheap = token_of(&SIGNERS.stranger, &head, &expired);
    assert_eq!(TestRequest::new(gate, "/x").token(&cheap).reason(), Some(Reason::Expired));

    std::fs::write(path, jwks("next", &SIGNERS.stranger)).expect("a file");
    keys.ask(&WantedKey::key("next")).await;
    assert_eq!(second.reason(), None);
    refresher.abort();
}

#[tokio::test]
async fn a_token_that_no_key_proves_asks_for_another_set_once() {
    let Refreshed { path, keys, gate, refresher, .. } = &refreshed().await;
    let named = |kid: Option<&str>| header(json!({"kid": kid})).to_string();
    let without = json!({"alg": "ES256", "typ": "at+jwt"}).to_string();
    let payload = payload(json!({})).to_string();
    let old = WantedKey::OtherThan(keys.generation());
    for head in [named(Some("es")), without] {
        let token = token_of(&SIGNERS.stranger, &head, &payload);
        let first = TestRequest::new(gate, "/x").token(&token);
        let Verdict::Ask(question) = first.decide().verdict else { panic!("not asked: {head}") };
        let (wanted, otherwise) = (old.clone(), Reason::BadSignature);
        assert_eq!(question, Question::Keys { issuer: IssuerIndex(0), wanted, otherwise });
        let second = TestRequest { asked: first.asked.and(&question), ..first };
        assert_eq!(second.reason(), Some(Reason::BadSignature), "{head}");
    }
    // The issuer has a new key under the old name.
    std::fs::write(path, jwks("es", &SIGNERS.stranger)).expect("a file");
    keys.ask(&old).await;
    let token = token_of(&SIGNERS.stranger, &named(Some("es")), &payload);
    assert_eq!(TestRequest::new(gate, "/x").token(&token).reason(), None);
    let token = token_of(&SIGNERS.es256, &named(Some("es")), &payload);
    let withdrawn = TestRequest { asked: Asked::KEYS, ..TestRequest::new(gate, "/x").token(&token) };
    assert_eq!(withdrawn.reason(), Some(Reason::BadSignature));
    refresher.abort();
}

#[test]
fn a_route_is_found_by_the_method_and_host_that_are_asked_for() {
    let of_host = |path: &str, host: &str| RouteSettings { hosts: vec![host.to_owned()], ..route(path) };
    let of_method = |path: &str, method| RouteSettings { methods: vec![method], ..route(path) };
    let routes = vec![
        of_host("/ours", "api.example"),
        of_host("/theirs", "other.example"),
        of_method("/get", http::Method::GET),
        of_method("/post", http::Method::POST),
    ];
    let gate = enforcer(issuers(), routes);
    let token = token(&payload(json!({})));
    for (path, found) in [("/ours", Some(0)), ("/theirs", None), ("/get", Some(2)), ("/post", None)] {
        let request = TestRequest::new(&gate, path).token(&token);
        assert_eq!(request.reason(), if found.is_some() { None } else { Some(Reason::NoRoute) }, "{path}");
        let (target, headers) = (path.parse::<http::Uri>().unwrap(), http::HeaderMap::new());
        let asked = Request {
            method: &http::Method::GET,
            target: &(&target).into(),
            host: Some("api.example"),
            headers: &headers,
            certificate: None,
        };
        assert_eq!(gate.route(&asked, request.now()).map(|route| route.index()), found, "{path}");
    }
}
