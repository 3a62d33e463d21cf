//! The order of the table is the order of rejections, and a cached proof hides nothing that can change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm::ES256;
use serde_json::{Value, json};

use super::*;
use crate::enforce::claims::IssuerRules;
use crate::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue};
use crate::enforce::decide::{Enforcer, InForce, Pass, Proof, TrustedIssuer, Verdict};
use crate::enforce::mcp::McpSettings;
use crate::enforce::policy::{Authentication, ClaimName, Requirement, RouteSettings, WebOrigin};
use crate::enforce::resource::Resource;
use crate::enforce::testing::{
    AUDIENCE, ISSUER, NOW, SIGNERS, TestRequest as Asking, b64, enforcer_with, header, issuers, key_settings,
    now, payload, route, rules, token, token_of,
};
use crate::identity::SubjectKey;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::revocations::{Ends, Revocations};
use crate::sessions::{self, Sessions};
use crate::time::{Now, Timestamp};

const APP: &str = "https://app.example";
const EVIL: &str = "https://evil.example";

/// The reason when this check and all later ones fail.
const REASONS: [(&str, Reason); 31] = [
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
    ("proof", Reason::UnprovenToken),
    ("resource", Reason::WrongAudience),
    ("route_issuers", Reason::UnknownIssuer),
    ("route_audiences", Reason::WrongAudience),
    ("revocation", Reason::SubjectRevoked),
    ("idle", Reason::Idle),
    ("issuer_conditions", Reason::ClaimCondition),
    ("scopes", Reason::InsufficientScope),
    ("roles", Reason::InsufficientRole),
    ("claim_conditions", Reason::ClaimCondition),
    ("allow", Reason::ClaimCondition),
    ("authentication", Reason::InsufficientAuthentication),
];

/// From here on a route may require more than the tokens have.
const STEPS: [&str; 9] =
    ["mcp", "resource", "issuers", "audiences", "scopes", "roles", "claims", "allow", "authentication"];

/// A route that the tokens satisfy, and one per step that requires more at this step and all later ones.
fn routes() -> Vec<RouteSettings> {
    let claim = |value: &str| ClaimCondition {
        claim: ClaimName::Member("unit".to_owned()),
        tests: vec![ClaimTest::Equals(ClaimValue::Text(value.to_owned()))],
    };
    let route = |step: usize, path: &str| {
        let more = |name: &str| STEPS.iter().position(|step| *step == name) >= Some(step);
        let word = |name: &str, good: &str| if more(name) { "other" } else { good }.to_owned();
        let resource = Resource { require_audience: true, ..Resource::default() };
        RouteSettings {
            origins: vec![WebOrigin::parse(APP).expect("an origin")],
            mcp: McpSettings {
                methods: if more("mcp") { vec!["tools/call".to_owned()] } else { Vec::new() },
                names: Vec::new(),
            },
            resource: more("resource").then(|| Arc::new(resource)),
            requirement: Requirement {
                scopes: vec![word("scopes", "read:deals")],
                roles: vec![word("roles", "editor")],
                claims: vec![claim(&word("claims", "sales"))],
                ..Requirement::default()
            },
            allow: vec![Requirement {
                claims: vec![claim(&word("allow", "sales"))],
                ..Requirement::default()
            }],
            issuers: vec![word("issuers", ISSUER).into()],
            audiences: vec![word("audiences", AUDIENCE)],
            authentication: Authentication {
                acr_values: vec![word("authentication", "gold")],
                max_age: Some(Duration::from_secs(86_600)),
            },
            ..route(path)
        }
    };
    let more = STEPS.iter().enumerate().map(|(step, name)| route(step, &format!("/{name}")));
    more.chain([route(STEPS.len(), "/good")]).collect()
}

/// The issuers, the first of which has a condition.
fn conditional() -> Vec<TrustedIssuer> {
    let mut issuers = issuers();
    issuers[0].rules.conditions = vec![staff()];
    issuers
}

fn staff() -> ClaimCondition {
    ClaimCondition {
        claim: ClaimName::Member("staff".to_owned()),
        tests: vec![ClaimTest::Equals(ClaimValue::Flag(true))],
    }
}

/// A payload that meets the requirements of `/good`.
fn claims(changes: Value) -> Value {
    let mut good = payload(json!({"unit": "sales", "staff": true, "acr": "gold", "auth_time": NOW - 10}));
    good.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
    good
}

/// Alice's tokens were revoked 50 s ago; tokens are idle after a minute.
fn gate() -> Enforcer {
    let revocations = Revocations::new(None);
    let at = Timestamp::from_secs(NOW - 50);
    let ends = Ends::Subject(SubjectKey::new(ISSUER, "alice"), at);
    revocations.apply([ends]);
    let in_force = InForce { revocations: Arc::new(revocations), sessions: idle(), ..InForce::unlimited() };
    enforcer_with(conditional(), routes(), in_force)
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
        () if fails("route_issuers") => "/issuers",
        () if fails("route_audiences") => "/audiences",
        () if fails("scopes") => "/scopes",
        () if fails("roles") => "/roles",
        () if fails("claim_conditions") => "/claims",
        () if fails("allow") => "/allow",
        () if fails("authentication") => "/authentication",
        () => "/good",
    };
    if fails("token") {
        return (path, "opaque".to_owned());
    }
    let mut claims = claims(json!({"jti": format!("token-{first}")}));
    let mut set = |check: &str, name: &str, value: Value| {
        if fails(check) {
            claims[name] = value;
        }
    };
    set("issuer_conditions", "staff", json!(false));
    set("idle", "iat", json!(NOW - 61));
    set("idle", "sub", json!("bob"));
    set("revocation", "sub", json!("alice"));
    set("proof", "cnf", json!({"jkt": b64(&[7; 32])}));
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
        // Only a connection has a certificate, and only a request a proof.
        if name != "certificate" && name != "proof" {
            assert_eq!((failed, told.reason), (Some(name), Some(expected)), "{told:?}");
        }
    }
    let (path, token) = failing_from(REASONS.len());
    assert_eq!(Asking::new(&gate, path).token(&token).reason(), None);
}

/// Keys that were fetched now and become stale.
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
#[expect(clippy::too_many_lines, reason = "one table, a row for each check that can change")]
fn cached_proofs_and_requests_that_last_are_judged_by_every_check_that_can_change() {
    let rules = IssuerRules { conditions: vec![staff()], ..rules(ISSUER, &[ES256]) };
    let issuer = TrustedIssuer { rules, keys: fetched() };
    let revocations = Arc::new(Revocations::new(None));
    let in_force =
        InForce { revocations: Arc::clone(&revocations), sessions: idle(), ..InForce::unlimited() };
    let gate = enforcer_with(vec![issuer], routes(), in_force);
    // With the longest allowed lifetime, so that everything else can end first.
    let bound = |jti: &str| {
        let cnf = json!({"x5t#S256": b64(&[7; 32])});
        let sub = format!("user-{jti}");
        token(&claims(
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
        // What a lasting request asks for does not change; all else is judged again.
        if let Some(token) = judgement.token {
            let pass = Pass { token, told: None, is_proven: false };
            // Elsewhere the route also requires more at every later step.
            let path = if check == "authentication" { "/authentication" } else { "/good" };
            let route = gate.routes().iter().find(|route| **route.pattern() == *path).expect("a route");
            let lasting = gate.judge_again(&pass, route, asking.certificate.as_ref(), asking.now());
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
    let early = token(&claims(json!({"iat": NOW, "jti": "early"})));
    assert_eq!(ask("/good", &early).decide().proof, Proof::Fresh);
    cached("issued_at", at(-31, ask("/good", &early)), Reason::IssuedInFuture);
    cached("key", at(86_401, ask("/good", &good)), Reason::KeysUnavailable);
    cached("certificate", Asking::new(&gate, "/good").token(&good), Reason::CertificateMismatch);
    let keyed = token(&claims(json!({"cnf": {"jkt": b64(&[7; 32])}, "iat": NOW, "jti": "keyed"})));
    assert_eq!(ask("/good", &keyed).decide().proof, Proof::Fresh);
    cached("proof", ask("/good", &keyed), Reason::UnprovenToken);
    cached("resource", ask("/resource", &good), Reason::WrongAudience);
    cached("route_issuers", ask("/issuers", &good), Reason::UnknownIssuer);
    cached("route_audiences", ask("/audiences", &good), Reason::WrongAudience);
    cached("scopes", ask("/scopes", &good), Reason::InsufficientScope);
    cached("roles", ask("/roles", &good), Reason::InsufficientRole);
    cached("claim_conditions", ask("/claims", &good), Reason::ClaimCondition);
    cached("allow", ask("/allow", &good), Reason::ClaimCondition);
    cached("authentication", ask("/authentication", &good), Reason::InsufficientAuthentication);
    let stranger = token(&claims(json!({"iat": NOW, "jti": "stranger", "staff": "true"})));
    let refused = ask("/good", &stranger).decide();
    assert_eq!(refused.proof, Proof::Fresh, "its signature is true, and the proof is kept");
    cached("issuer_conditions", ask("/good", &stranger), Reason::ClaimCondition);
    let at_once = Ends::Subject(SubjectKey::new(ISSUER, "user-1"), now());
    revocations.apply([at_once]);
    cached("revocation", ask("/good", &good), Reason::SubjectRevoked);
    let other = bound("2");
    assert_eq!(ask("/good", &other).decide().proof, Proof::Fresh);
    cached("idle", at(61, ask("/good", &other)), Reason::Idle);

    let again = CHECKS.iter().filter(|check| !matches!(check.again, Again::Nothing));
    assert_eq!(judged, again.map(|check| check.name).collect(), "a check that can change has no row here");
}
