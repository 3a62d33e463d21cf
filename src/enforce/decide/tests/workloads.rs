//! JWT-SVIDs: which table they belong to, and what counts as the time of issue of one without `iat`.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm::ES256;
use serde_json::{Value, json};

use crate::enforce::Settings;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::decide::{Enforcer, InForce, TrustedIssuer, Verdict};
use crate::enforce::denial::Reason;
use crate::enforce::testing::{
    AUDIENCE, ISSUER, NOW, SIGNERS, TestRequest, identity, issuer, issuers, key, route, token, token_of,
};
use crate::identity::{IssuerKey, SubjectKey};
use crate::keys::set::KeySet;
use crate::metrics::Metrics;
use crate::revocations::{Ends, Revocations};
use crate::sessions::{self, Sessions};
use crate::time::{Now, Timestamp};

const DOMAIN: &str = "spiffe://example.org";
const WORKLOAD: &str = "spiffe://example.org/ns/prod/sa/api";

fn trusting() -> Vec<TrustedIssuer> {
    let mut tables = issuers();
    let mut domain = issuer(DOMAIN, &[ES256], KeySet::new(vec![key("svid", ES256, &SIGNERS.stranger)]));
    domain.rules.trust_domain = Some("example.org".into());
    domain.rules.token_types = vec!["JWT".to_owned(), "JOSE".to_owned()];
    domain.rules.max_lifetime = Duration::from_secs(3600);
    tables.insert(0, domain);
    tables
}

/// A gate at which tokens are idle after a minute, and its revocations.
fn gate_and_revocations() -> (Enforcer, Arc<Revocations>) {
    let settings = sessions::Settings {
        idle_timeouts: Some(Duration::from_secs(60)).into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: false,
    };
    let revocations = Arc::new(Revocations::new(None));
    let in_force = InForce {
        sessions: Arc::new(Sessions::new(settings)),
        revocations: Arc::clone(&revocations),
        ..InForce::unlimited()
    };
    (with(in_force), revocations)
}

fn with(in_force: InForce) -> Enforcer {
    let settings = Settings {
        routes: vec![route("/{*rest}")],
        identity: identity(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: 100,
    };
    let metrics = Metrics::new().expect("instruments");
    Enforcer::new(settings, trusting(), in_force, &metrics).expect("sound routes")
}

/// A token of the workload without `iss` and `iat`, with some claims changed.
fn svid(changes: Value) -> String {
    let mut claims = json!({"sub": WORKLOAD, "aud": [AUDIENCE], "exp": NOW + 300});
    let members = claims.as_object_mut().expect("an object");
    members.extend(changes.as_object().expect("an object").clone());
    members.retain(|_, value| !value.is_null());
    token_of(&SIGNERS.stranger, &json!({"alg": "ES256", "kid": "svid"}).to_string(), &claims.to_string())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(NOW + second)
}

fn reason(gate: &Enforcer, token: &str, second: i64) -> Option<Reason> {
    TestRequest { at: at(second), ..TestRequest::new(gate, "/x").token(token) }.reason()
}

/// Uses the token.
fn forward(gate: &Enforcer, token: &str, second: i64) {
    let request = TestRequest { at: at(second), ..TestRequest::new(gate, "/x").token(token) };
    let Verdict::Allow(permit) = request.decide().verdict else { panic!("not allowed at {second}") };
    assert_eq!(gate.begin(&permit, Now::at_millis(at(second).as_millis())), Ok(()));
}

#[test]
fn the_trust_domain_of_the_subject_chooses_the_issuer_of_a_token_that_names_none() {
    let gate = with(InForce::unlimited());
    let table = [
        (json!({}), None),
        (json!({"iss": "https://spire.example.org"}), None),
        (json!({"iss": DOMAIN}), None),
        (json!({"jti": "1", "iat": NOW - 5}), None),
        (json!({"iss": 7}), Some(Reason::BadClaim)),
        // An `iss` that names a configured issuer selects that issuer, which has not signed this.
        (json!({"iss": ISSUER, "iat": NOW}), Some(Reason::UnknownKey)),
        (json!({"sub": "spiffe://example.org"}), Some(Reason::BadClaim)),
        (json!({"sub": "spiffe://example.org/ns//sa"}), Some(Reason::BadClaim)),
        (json!({"sub": "spiffe://Example.org/ns"}), Some(Reason::UnknownIssuer)),
        (json!({"sub": "spiffe://other.example/ns"}), Some(Reason::UnknownIssuer)),
        (json!({"sub": "spiffe://example.org.evil.example/ns"}), Some(Reason::UnknownIssuer)),
        (json!({"sub": null}), Some(Reason::UnknownIssuer)),
        (json!({"sub": "alice"}), Some(Reason::UnknownIssuer)),
        (json!({"aud": null}), Some(Reason::WrongAudience)),
        (json!({"aud": "x"}), Some(Reason::WrongAudience)),
        (json!({"exp": null}), Some(Reason::MissingClaim)),
        (json!({"exp": NOW - 31}), Some(Reason::Expired)),
        (json!({"iat": NOW - 60, "exp": NOW - 31}), Some(Reason::Expired)),
        (json!({"exp": NOW + 3600}), None),
        (json!({"exp": NOW + 3601}), Some(Reason::TooLongLived)),
        (json!({"nbf": NOW - 1, "exp": NOW + 3600}), Some(Reason::TooLongLived)),
        (json!({"nbf": NOW + 31}), Some(Reason::NotYetValid)),
        (json!({"iat": "x"}), Some(Reason::BadClaim)),
    ];
    for (changes, expected) in table {
        assert_eq!(reason(&gate, &svid(changes.clone()), 0), expected, "{changes}");
    }
    for kind in ["at+jwt", "x"] {
        let header = json!({"alg": "ES256", "kid": "svid", "typ": kind}).to_string();
        let claims = json!({"sub": WORKLOAD, "aud": AUDIENCE, "exp": NOW + 300}).to_string();
        let token = token_of(&SIGNERS.stranger, &header, &claims);
        assert_eq!(reason(&gate, &token, 0), Some(Reason::WrongType), "{kind}");
    }
    // Tokens of other issuers still need their iat.
    let other = json!({"iss": ISSUER, "sub": WORKLOAD, "aud": AUDIENCE, "exp": NOW + 300});
    assert_eq!(reason(&gate, &token(&other), 0), Some(Reason::MissingClaim));
}

#[test]
fn a_token_without_iat_was_issued_when_it_was_first_seen_and_stays_so() {
    let (gate, _) = gate_and_revocations();
    let token = svid(json!({}));
    assert_eq!(reason(&gate, &token, 0), None);
    forward(&gate, &token, 0);
    forward(&gate, &token, 60);
    assert_eq!(reason(&gate, &token, 121), Some(Reason::Idle), "a minute after its last use");
    gate.sweep(Now::at_millis(0).monotonic);
    let other = with(gate.in_force.clone()).after(&gate);
    for gate in [&gate, &other] {
        assert_eq!(reason(gate, &token, 150), Some(Reason::Idle), "for good");
    }
    let unused = svid(json!({"jti": "unused"}));
    assert_eq!(reason(&gate, &unused, 0), None);
    assert_eq!(reason(&gate, &unused, 60), None);
    assert_eq!(reason(&gate, &unused, 61), Some(Reason::Idle), "as one with iat");
    let said = svid(json!({"jti": "said", "nbf": NOW - 61}));
    assert_eq!(reason(&gate, &said, 0), Some(Reason::Idle), "nbf says when it was issued at the latest");
}

#[test]
fn an_event_ends_a_token_without_iat_that_was_there_before_it() {
    let (gate, revocations) = gate_and_revocations();
    let before = svid(json!({"jti": "before"}));
    assert_eq!(reason(&gate, &before, 0), None);
    let subject = SubjectKey::new(DOMAIN, WORKLOAD);
    revocations.apply([Ends::Subject(subject, at(5))]);
    assert_eq!(reason(&gate, &before, 6), Some(Reason::SubjectRevoked));
    let after = svid(json!({"jti": "after"}));
    assert_eq!(reason(&gate, &after, 7), None);
    let issuer = Ends::Issuer(IssuerKey::new(DOMAIN), at(8));
    revocations.apply([issuer]);
    assert_eq!(reason(&gate, &after, 9), Some(Reason::IssuerRevoked));
}

#[test]
fn what_is_only_explained_was_not_seen() {
    let (gate, _) = gate_and_revocations();
    let token = svid(json!({}));
    let explained = |second| {
        let request = TestRequest { at: at(second), ..TestRequest::new(&gate, "/x").token(&token) };
        request.explain().expect("an explanation")
    };
    assert!(explained(0).allowed);
    let found = explained(100);
    assert!(found.allowed, "{found:?}");
    assert!(found.detail("dates").contains("counts as issued at"), "{}", found.detail("dates"));
    assert_eq!(found.detail("issuer"), format!("sub is \"{WORKLOAD}\", of the trust domain \"example.org\""));
    assert_eq!(reason(&gate, &token, 200), None);
    assert_eq!(explained(261).reason, Some(Reason::Idle), "it was seen at 200");
}

#[test]
fn tokens_of_kubernetes_that_never_expire_are_told_by_their_issuer() {
    let mut tables = issuers();
    let legacy = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:prod:api",
        "kubernetes.io/serviceaccount/namespace": "prod",
    });
    let gate = crate::enforce::testing::enforcer(tables.clone(), vec![route("/{*rest}")]);
    let request =
        |gate| TestRequest::new(gate, "/x").token(&token(&legacy)).explain().expect("an explanation");
    let found = request(&gate);
    assert_eq!(found.reason, Some(Reason::UnknownIssuer));
    assert!(found.detail("issuer").contains("use a projected token"), "{}", found.detail("issuer"));
    tables[0].rules.issuer = "kubernetes/serviceaccount".into();
    let gate = crate::enforce::testing::enforcer(tables, vec![route("/{*rest}")]);
    let found = request(&gate);
    assert_eq!(found.reason, Some(Reason::MissingClaim));
    assert!(found.detail("dates").contains("use a projected token"), "{}", found.detail("dates"));
    let year = json!({
        "iss": ISSUER, "sub": "system:serviceaccount:prod:api", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 31_536_000,
        "kubernetes.io": {"namespace": "prod", "warnafter": NOW + 3607},
    });
    let gate = crate::enforce::testing::enforcer(issuers(), vec![route("/{*rest}")]);
    let found = TestRequest::new(&gate, "/x").token(&token(&year)).explain().expect("an explanation");
    assert_eq!(found.reason, Some(Reason::TooLongLived));
    assert!(found.detail("lifetime").contains("expirationSeconds"), "{}", found.detail("lifetime"));
}
