//! The order of the table is the order of refusals, and a cached proof hides nothing that can change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm::ES256;
use serde_json::{Value, json};

use super::*;
use crate::enforce::decide::{Enforcer, InForce, Pass, Proof, TrustedIssuer, Verdict};
use crate::enforce::mcp::McpSettings;
use crate::enforce::policy::{Requirement, RouteSettings, WebOrigin};
use crate::enforce::resource::Resource;
use crate::enforce::testing::{
    ISSUER, NOW, SIGNERS, TestRequest as Asking, b64, enforcer_with, header, issuers, key_settings, now,
    payload, route, rules, token, token_of,
};
use crate::identity::SubjectKey;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::revocations::{Ends, Revocations};
use crate::sessions::{self, Sessions};
use crate::time::{Now, Timestamp};

const APP: &str = "https://app.example";
const EVIL: &str = "https://evil.example";

/// What decides when this check and all after it fail.
const REASONS: [(&str, Reason); 24] = [
    ("target", Reason::BadTarget),
    ("route", Reason::NoRoute),
    ("origin", Reason::BadOrigin),
    ("mcp", Reason::BadMcp),
    ("token", Reason::NotJwt),
    ("issuer", Reason::UnknownIssuer),
    ("type", Reason::WrongType),
    ("algorithm", Reason::BadAlgorithm),
    ("dates", Reason::MissingClaim),
    ("expiry", Reason::Expired),
    ("not_before", Reason::NotYetValid),
    ("issued_at", Reason::IssuedInFuture),
    ("lifetime", Reason::TooLongLived),
    ("audience", Reason::WrongAudience),
    ("required_claims", Reason::MissingClaim),
    ("key", Reason::UnknownKey),
    ("signature", Reason::BadSignature),
    ("claims", Reason::BadClaim),
    ("certificate", Reason::CertificateMismatch),
    ("resource", Reason::WrongAudience),
    ("revocation", Reason::SubjectRevoked),
    ("idle", Reason::Idle),
    ("scopes", Reason::InsufficientScope),
    ("roles", Reason::InsufficientRole),
];

/// A route that the tokens satisfy, one that wants another role, and others that want another scope as well.
fn routes() -> Vec<RouteSettings> {
    let needs = |scope: &str, role: &str| Requirement {
        scopes: vec![scope.to_owned()],
        roles: vec![role.to_owned()],
        ..Requirement::default()
    };
    let origins = || vec![WebOrigin::parse(APP).expect("an origin")];
    vec![
        RouteSettings { requirement: needs("read:deals", "editor"), origins: origins(), ..route("/good") },
        RouteSettings { requirement: needs("read:deals", "admin"), origins: origins(), ..route("/role") },
        RouteSettings { requirement: needs("write:deals", "admin"), origins: origins(), ..route("/scope") },
        RouteSettings {
            requirement: needs("write:deals", "admin"),
            mcp: McpSettings { methods: vec!["tools/call".to_owned()], names: Vec::new() },
            origins: origins(),
            ..route("/mcp")
        },
        RouteSettings {
            requirement: needs("write:deals", "admin"),
            resource: Some(Arc::new(Resource { require_audience: true, ..Resource::default() })),
            origins: origins(),
            ..route("/resource")
        },
    ]
}

/// Alice's tokens were revoked 50 s ago; tokens are idle after a minute.
fn gate() -> Enforcer {
    let revocations = Revocations::new(None);
    let at = Timestamp::from_secs(NOW - 50);
    let ends = Ends::Subject(SubjectKey::new(ISSUER, "alice"), at);
    revocations.apply([ends]);
    let in_force = InForce { revocations: Arc::new(revocations), sessions: idle(), ..InForce::unlimited() };
    enforcer_with(issuers(), routes(), in_force)
}

fn idle() -> Arc<Sessions> {
    let idle_timeouts = Some(Duration::from_secs(60)).into();
    let settings =
        sessions::Settings { idle_timeouts, max_tracked: 100, leeway: Duration::ZERO, saved: false };
    Arc::new(Sessions::new(settings))
}

/// A path and a token that fail every check from the given one on, and none before.
fn failing_from(first: usize) -> (&'static str, String) {
    let fails = |check: &str| REASONS.iter().position(|(name, _)| *name == check) >= Some(first);
    let path = match () {
        () if fails("target") => "//good",
        () if fails("route") => "/nowhere",
        () if fails("mcp") => "/mcp",
        () if fails("resource") => "/resource",
        () if fails("scopes") => "/scope",
        () if fails("roles") => "/role",
        () => "/good",
    };
    if fails("token") {
        return (path, "opaque".to_owned());
    }
    let mut claims = payload(json!({"jti": format!("token-{first}")}));
    let mut set = |check: &str, name: &str, value: Value| {
        if fails(check) {
            claims[name] = value;
        }
    };
    set("idle", "iat", json!(NOW - 61));
    set("idle", "sub", json!("bob"));
    set("revocation", "sub", json!("alice"));
    set("certificate", "cnf", json!({"x5t#S256": b64(&[7; 32])}));
    set("claims", "roles", json!(7));
    set("required_claims", "sub", Value::Null);
    set("audience", "aud", json!("x"));
    set("lifetime", "iat", json!(NOW - 100_000));
    set("issued_at", "iat", json!(NOW + 100_000));
    set("not_before", "nbf", json!(NOW + 100));
    set("expiry", "exp", json!(NOW - 100));
    set("dates", "iat", Value::Null);
    set("issuer", "iss", json!("https://evil.example/"));
    if fails("dates") {
        claims.as_object_mut().expect("an object").remove("iat");
    }
    let mut head = header(json!({}));
    let mut set = |check: &str, name: &str, value: &str| {
        if fails(check) {
            head[name] = json!(value);
        }
    };
    set("key", "kid", "nobody");
    set("algorithm", "alg", "none");
    set("type", "typ", "x");
    let signer = if fails("signature") { &SIGNERS.stranger } else { &SIGNERS.es256 };
    (path, token_of(signer, &head.to_string(), &claims.to_string()))
}

#[test]
fn the_first_check_of_the_table_that_fails_is_the_reason() {
    assert_eq!(REASONS.map(|(name, _)| name), crate::enforce::explain::CHECKS);
    let gate = gate();
    for (first, (name, expected)) in REASONS.into_iter().enumerate() {
        let (path, token) = failing_from(first);
        let is_foreign = REASONS.iter().position(|(name, _)| *name == "origin") >= Some(first);
        let asking = Asking { origin: is_foreign.then_some(EVIL), ..Asking::new(&gate, path).token(&token) };
        let told = asking.explain().expect("a bearer token");
        let failed = told.checks.iter().find(|made| made.ok == Some(false)).map(|made| made.check);
        let Verdict::Deny(denial) = asking.decide().verdict else { panic!("{name}: not denied") };
        assert_eq!(denial.reason, expected, "{name}");
        // Only a connection shows the certificate.
        if name != "certificate" {
            assert_eq!((failed, told.reason), (Some(name), Some(expected)), "{told:?}");
        }
    }
    let (path, token) = failing_from(REASONS.len());
    assert_eq!(Asking::new(&gate, path).token(&token).reason(), None);
}

/// Keys that were fetched now, and grow stale.
fn fetched() -> Arc<KeyStore> {
    let keys = KeyStore::new(key_settings(ISSUER, &[ES256]), Metrics::new().expect("instruments"));
    let point = SIGNERS.es256.public();
    let key =
        json!({"kty": "EC", "crv": "P-256", "kid": "es", "x": b64(&point[1..33]), "y": b64(&point[33..])});
    let install = |at| keys.accept(json!({"keys": [key]}).to_string().into_bytes().into(), at);
    install(Now::at_millis(now().as_millis())).expect("a sound set");
    keys
}

#[test]
fn cached_proofs_and_requests_that_last_are_judged_by_every_check_that_can_change() {
    let issuer = TrustedIssuer { rules: rules(ISSUER, &[ES256]), keys: fetched() };
    let revocations = Arc::new(Revocations::new(None));
    let in_force =
        InForce { revocations: Arc::clone(&revocations), sessions: idle(), ..InForce::unlimited() };
    let gate = enforcer_with(vec![issuer], routes(), in_force);
    // As long-lived as tokens may be, so that everything else can end before it does.
    let bound = |jti: &str| {
        let cnf = json!({"x5t#S256": b64(&[7; 32])});
        let sub = format!("user-{jti}");
        token(&payload(
            json!({"cnf": cnf, "iat": NOW, "exp": NOW + 86_400, "nbf": NOW, "jti": jti, "sub": sub}),
        ))
    };
    let ask =
        |path, token: &str| Asking { certificate: Some([7; 32]), ..Asking::new(&gate, path).token(token) };
    let at = |seconds: i64, asking| Asking { at: Timestamp::from_secs(NOW + seconds), ..asking };
    let mut judged = BTreeSet::new();
    let mut expect = |check: &'static str, asking: Asking<'_>, reason: Reason| {
        let judgement = asking.decide();
        let Verdict::Deny(denial) = judgement.verdict else { panic!("{check}: not denied") };
        assert_eq!(denial.reason, reason, "{check}");
        judged.insert(check);
        // A request that lasts is what it was when it was allowed; all else is judged again.
        if let Some(token) = judgement.token {
            let pass = Pass { token, told: None };
            let lasting = gate.judge_again(&pass, asking.certificate.as_ref(), asking.now());
            let entry = CHECKS.iter().find(|entry| entry.name == check).expect("a check of this name");
            let is_judged = matches!(entry.again, Again::All | Again::Part(_));
            assert_eq!(lasting.err(), is_judged.then_some(reason), "{check}");
        }
        judgement.proof
    };
    let good = bound("1");
    assert_eq!(ask("/good", &good).decide().proof, Proof::Fresh);
    expect("target", ask("//good", &good), Reason::BadTarget);
    expect("route", ask("/nowhere", &good), Reason::NoRoute);
    let foreign = Asking { origin: Some(EVIL), ..ask("/good", &good) };
    expect("origin", foreign, Reason::BadOrigin);
    expect("mcp", ask("/mcp", &good), Reason::BadMcp);
    expect("token", ask("/good?access_token=x", &good), Reason::Ambiguous);
    let mut cached = |check, asking, reason| {
        assert_eq!(expect(check, asking, reason), Proof::Cached, "{check}");
    };
    cached("expiry", at(86_430, ask("/good", &good)), Reason::Expired);
    cached("not_before", at(-31, ask("/good", &good)), Reason::NotYetValid);
    let early = token(&payload(json!({"iat": NOW, "jti": "early"})));
    assert_eq!(ask("/good", &early).decide().proof, Proof::Fresh);
    cached("issued_at", at(-31, ask("/good", &early)), Reason::IssuedInFuture);
    cached("key", at(86_401, ask("/good", &good)), Reason::KeysUnavailable);
    cached("certificate", Asking::new(&gate, "/good").token(&good), Reason::CertificateMismatch);
    cached("resource", ask("/resource", &good), Reason::WrongAudience);
    cached("scopes", ask("/scope", &good), Reason::InsufficientScope);
    cached("roles", ask("/role", &good), Reason::InsufficientRole);
    let at_once = Ends::Subject(SubjectKey::new(ISSUER, "user-1"), now());
    revocations.apply([at_once]);
    cached("revocation", ask("/good", &good), Reason::SubjectRevoked);
    let other = bound("2");
    assert_eq!(ask("/good", &other).decide().proof, Proof::Fresh);
    cached("idle", at(61, ask("/good", &other)), Reason::Idle);

    let again = CHECKS.iter().filter(|check| !matches!(check.again, Again::Nothing));
    assert_eq!(judged, again.map(|check| check.name).collect(), "a check that can change has no row here");
}
