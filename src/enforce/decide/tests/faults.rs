//! What is remembered of bad tokens: permanent faults, and nothing that time, keys or settings can cure.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm::{ES256, EdDSA};
use serde_json::{Value, json};

use crate::enforce::Settings;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::decide::{Enforcer, InForce, Proof, TrustedIssuer, Verdict};
use crate::enforce::denial::Reason;
use crate::enforce::faults::LastingFault;
use crate::enforce::policy::IdentitySettings;
use crate::enforce::testing::{
    ISSUER, NOW, OTHER, SIGNERS, Signer, TestRequest, b64, enforcer, header, identity, issuer, issuers, key,
    now, payload, route, token, token_of, without,
};
use crate::enforce::token::sha256;
use crate::keys::set::KeySet;
use crate::metrics::Metrics;
use crate::time::{Now, Timestamp};

fn gate_of(issuers: Vec<TrustedIssuer>) -> Enforcer {
    enforcer(issuers, vec![route("/{*rest}")])
}

fn text(signer: &Signer, head: Value, claims: Value) -> String {
    token_of(signer, &header(head).to_string(), &claims.to_string())
}

/// A token with these claims, signed by a stranger.
fn forged(claims: Value) -> String {
    text(&SIGNERS.stranger, json!({}), payload(claims))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(NOW + second)
}

fn reason(gate: &Enforcer, token: &str, second: i64) -> Option<Reason> {
    TestRequest { at: at(second), ..TestRequest::new(gate, "/x").token(token) }.reason()
}

/// How many faults a gate remembers after it has seen one token.
fn remembered(token: &str) -> usize {
    let gate = gate_of(issuers());
    let judgement = TestRequest::new(&gate, "/x").token(token).decide();
    assert!(matches!(judgement.verdict, Verdict::Deny(_)), "{judgement:?}");
    gate.verifier.faults()
}

#[test]
fn what_stays_wrong_is_remembered_and_nothing_else_is() {
    let es = &SIGNERS.es256;
    for (what, token) in [
        ("no token by its form", "a b".to_owned()),
        ("no JWT", "abc.def.ghi".to_owned()),
        ("a member that occurs twice", token_of(es, r#"{"alg":"ES256","alg":"ES256"}"#, "{}")),
        ("an unknown issuer", text(es, json!({}), payload(json!({"iss": "https://nobody.example/"})))),
        ("another type", text(es, json!({"typ": "x"}), payload(json!({})))),
        ("another algorithm", text(es, json!({"alg": "HS256"}), payload(json!({})))),
        ("no exp", text(es, json!({}), without(payload(json!({})), "exp"))),
        ("no iat", text(es, json!({}), without(payload(json!({})), "iat"))),
        ("too long a life", forged(json!({"exp": NOW + 100_000}))),
        ("another audience", forged(json!({"aud": "https://other.example"}))),
        ("no sub", text(es, json!({}), without(payload(json!({})), "sub"))),
        ("another signature", forged(json!({}))),
        ("a claim of another type, truly signed", token(&payload(json!({"roles": 7})))),
    ] {
        assert_eq!(remembered(&token), 1, "{what}");
    }
    for (what, token) in [
        ("expired", forged(json!({"exp": NOW - 60}))),
        ("not yet valid", forged(json!({"nbf": NOW + 60}))),
        ("issued in the future", forged(json!({"iat": NOW + 60}))),
        ("an unknown key", text(es, json!({"kid": "unknown"}), payload(json!({})))),
        ("a key of another algorithm", text(es, json!({"alg": "EdDSA"}), payload(json!({})))),
        ("bound to a certificate, truly signed", {
            let hash = b64(&[7; 32]);
            token(&payload(json!({"cnf": {"x5t#S256": hash}})))
        }),
    ] {
        assert_eq!(remembered(&token), 0, "{what}");
    }
    let gate = gate_of(issuers());
    for authorization in [None, Some("Bearer"), Some("Basic YTpi")] {
        let authorization = authorization.map(str::to_owned);
        let _denied = TestRequest { authorization, ..TestRequest::new(&gate, "/x") }.decide();
    }
    assert_eq!(gate.verifier.faults(), 0, "there was no token");
}

#[test]
fn a_remembered_fault_is_the_answer_and_costs_no_signature() {
    let gate = gate_of(issuers());
    let good = token(&payload(json!({})));
    let proof_key =
        gate.verifier.proof_key(crate::enforce::bearer::BearerToken::new(good.as_bytes()).unwrap());
    // Only a gate that does not parse the token again can report this fault.
    let fault =
        |check, reason| LastingFault { check, reason, claimed: None, validity: None, generation: None };
    gate.verifier.note_fault(
        proof_key.unwrap(),
        fault("token", Reason::NotJwt),
        Now::at_millis(now().as_millis()).monotonic,
    );
    let judgement = TestRequest::new(&gate, "/x").token(&good).decide();
    let Verdict::Deny(denial) = &judgement.verdict else { panic!("{judgement:?}") };
    assert_eq!((denial.reason, judgement.proof), (Reason::NotJwt, Proof::None));
    let told = TestRequest::new(&gate, "/x").token(&good).explain().expect("a token");
    assert_eq!(told.reason, None, "an explanation looks at the token itself");
}

#[test]
fn time_is_judged_before_what_is_remembered() {
    let gate = gate_of(issuers());
    let forged = forged(json!({"nbf": NOW, "exp": NOW + 600}));
    // The leeway is 30 s.
    for (second, expected) in [
        (0, Reason::BadSignature),
        (1, Reason::BadSignature),
        (-31, Reason::NotYetValid),
        (-30, Reason::BadSignature),
        (-41, Reason::NotYetValid),
        (629, Reason::BadSignature),
        (630, Reason::Expired),
        (2, Reason::BadSignature),
    ] {
        assert_eq!(reason(&gate, &forged, second), Some(expected), "{second}");
    }
    for (claim, early, late, wrong) in [
        (json!({"nbf": NOW + 100}), 69, 70, Reason::NotYetValid),
        (json!({"iat": NOW + 100}), 69, 70, Reason::IssuedInFuture),
    ] {
        let token = token(&payload(claim));
        for _ in 0..2 {
            assert_eq!(reason(&gate, &token, early), Some(wrong));
        }
        assert_eq!(reason(&gate, &token, late), None, "by time alone");
    }
}

#[test]
fn keys_that_are_not_usable_come_before_what_is_remembered() {
    let mut tables = issuers();
    let document = |signer: &Signer| {
        let point = signer.public();
        let [x, y] = [1..33, 33..65].map(|half| b64(&point[half]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "es", "alg": "ES256", "x": x, "y": y}]})
            .to_string()
    };
    let settings = crate::enforce::testing::key_settings(ISSUER, &[ES256]);
    let (max_stale, metrics) = (settings.max_stale, Metrics::new().expect("instruments"));
    tables[0].keys = crate::keys::store::KeyStore::new(settings, metrics);
    let keys = Arc::clone(&tables[0].keys);
    let gate = gate_of(tables);
    let forged = forged(json!({"exp": NOW + 86_000}));
    assert_eq!(reason(&gate, &forged, 0), Some(Reason::KeysUnavailable));
    keys.accept(document(&SIGNERS.es256).into(), Now::at_millis(now().as_millis())).expect("a key set");
    let stale = i64::try_from(max_stale.as_secs()).unwrap();
    for second in [0, 1] {
        assert_eq!(reason(&gate, &forged, second), Some(Reason::BadSignature));
    }
    let later = |second: i64| {
        let mut now = Now::at_millis(at(0).as_millis());
        now.monotonic = now.monotonic.plus(Duration::from_secs(u64::try_from(second).unwrap()));
        now
    };
    // Only the monotonic clock moves: the token itself stays as it is.
    let request = TestRequest::new(&gate, "/x").token(&forged);
    for (second, expected) in
        [(30, Reason::BadSignature), (stale + 1, Reason::KeysUnavailable), (31, Reason::BadSignature)]
    {
        assert_eq!(request.reason_at(later(second)), Some(expected), "{second}");
    }
}

#[test]
fn a_new_key_set_voids_what_was_found_under_the_old_one() {
    let tables = issuers();
    let (first, second) = (Arc::clone(&tables[0].keys), Arc::clone(&tables[1].keys));
    let gate = gate_of(tables);
    // Under the same kid as the key that is published now.
    let early = forged(json!({"jti": "early"}));
    let set = |signer: &Signer| KeySet::new(vec![key("es", ES256, signer)]);
    for round in 0..3 {
        for _ in 0..2 {
            assert_eq!(reason(&gate, &early, 0), Some(Reason::BadSignature), "{round}");
        }
        second.install(set(&SIGNERS.es256));
        second.install(set(&SIGNERS.other));
        assert_eq!(reason(&gate, &early, 0), Some(Reason::BadSignature), "another issuer's keys");
        first.install(set(&SIGNERS.stranger));
        for _ in 0..2 {
            assert_eq!(reason(&gate, &early, 0), None, "{round}: its key is published");
        }
        first.install(set(&SIGNERS.es256));
        assert_eq!(reason(&gate, &early, 0), Some(Reason::BadSignature), "{round}: withdrawn");
    }
    // A fault in a validly signed token remains as long as its signature is valid.
    let unusable = token(&payload(json!({"roles": 7})));
    for (signer, expected) in [
        (&SIGNERS.es256, Reason::BadClaim),
        (&SIGNERS.stranger, Reason::BadSignature),
        (&SIGNERS.es256, Reason::BadClaim),
    ] {
        first.install(set(signer));
        for _ in 0..2 {
            assert_eq!(reason(&gate, &unusable, 0), Some(expected));
        }
    }
}

#[test]
fn a_reload_keeps_faults_that_it_would_find_again_and_no_others() {
    let tables = issuers();
    let with = |issuers: Vec<TrustedIssuer>, identity: IdentitySettings| {
        let (routes, bearer) = (vec![route("/{*rest}")], BearerSettings::default());
        let settings = Settings { routes, identity, bearer, dpop: Default::default(), proofs: 10 };
        let metrics = Metrics::new().expect("instruments");
        Enforcer::new(settings, issuers, InForce::unlimited(), &metrics).expect("sound routes")
    };
    let before = with(tables.clone(), identity());
    let stray = text(&SIGNERS.es256, json!({}), payload(json!({"aud": "https://new.example"})));
    assert_eq!(reason(&before, &stray, 0), Some(Reason::WrongAudience));
    let faults = |gate: Enforcer| gate.after(&before).verifier.faults();
    assert_eq!(faults(with(tables.clone(), identity())), 1);
    assert_eq!(faults(with(tables.clone(), IdentitySettings::default())), 0);
    assert_eq!(faults(with(tables[..2].to_vec(), identity())), 0);
    let mut changed = tables.clone();
    changed[1] = issuer(OTHER, &[ES256, EdDSA], KeySet::new(vec![key("es", ES256, &SIGNERS.other)]));
    assert_eq!(faults(with(changed, identity())), 0, "other keys");
    let mut changed = tables;
    changed[0].rules.audiences.push("https://new.example".to_owned());
    let after = with(changed, identity()).after(&before);
    assert_eq!(reason(&after, &stray, 0), None, "its audience was configured");
}

#[test]
fn a_flood_of_bad_tokens_takes_no_room_from_good_ones() {
    let gate = gate_of(issuers());
    let numbered = |index: usize| token(&payload(json!({"jti": index.to_string()})));
    let good: Vec<String> = (0..50).map(numbered).collect();
    let proofs = || {
        let proof = |token: &String| TestRequest::new(&gate, "/x").token(token).decide().proof;
        good.iter().filter(|token| proof(token) == Proof::Cached).count()
    };
    assert_eq!((proofs(), proofs()), (0, 50));
    let kept = gate.verifier.proofs();
    let (input, _) = good[0].rsplit_once('.').expect("three parts");
    for number in 0..30_000_u64 {
        // Not even signatures of the right length: this tests the table. Sequential numbers would fill less
        // of it, because the slots of tokens that differ in few bits are correlated.
        let token = format!("{input}.{}", b64(&sha256(&number.to_be_bytes())));
        let judgement = TestRequest::new(&gate, "/x").token(&token).decide();
        assert!(matches!(judgement.verdict, Verdict::Deny(_)));
    }
    assert!(gate.verifier.faults() > 4_000 && gate.verifier.faults() <= 4_096, "{}", gate.verifier.faults());
    assert_eq!((gate.verifier.proofs(), proofs()), (kept, 50), "every good token is still at hand");
    gate.sweep(Now::at_millis(at(59).as_millis()).monotonic);
    assert!(gate.verifier.faults() > 4_000);
    gate.sweep(Now::at_millis(at(60).as_millis()).monotonic);
    assert_eq!(gate.verifier.faults(), 0, "a minute later the memory is given back");
}

#[test]
fn workers_that_judge_while_keys_change_never_take_a_good_token_for_a_bad_one() {
    let tables = issuers();
    let keys = Arc::clone(&tables[0].keys);
    let gate = gate_of(tables);
    let tokens = [token(&payload(json!({}))), forged(json!({}))];
    let set = |signer: &Signer| KeySet::new(vec![key("es", ES256, signer)]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for token in tokens.iter().cycle().take(600) {
                    let _either = TestRequest::new(&gate, "/x").token(token).decide();
                }
            });
        }
        for round in 0..100 {
            let signers = [&SIGNERS.es256, &SIGNERS.stranger];
            keys.install(set(signers[round % 2]));
            for (index, token) in tokens.iter().enumerate() {
                let is_allowed =
                    matches!(TestRequest::new(&gate, "/x").token(token).decide().verdict, Verdict::Allow(_));
                assert_eq!(is_allowed, index == round % 2, "{round}");
            }
        }
    });
}
