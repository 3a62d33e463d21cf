//! Tokens bound to a key: sent with a proof, without one, and with one made with another key.

use serde_json::{Value, json};

use crate::enforce::decide::{Ask, Asked, Enforcer, Permit, Verdict};
use crate::enforce::denial::{Denial, Reason};
use crate::enforce::dpop::testing::{changed, header, payload as proof_payload};
use crate::enforce::dpop::uri::UriOrigin;
use crate::enforce::dpop::{DpopSettings, ProofFault, SenderConstraint};
use crate::enforce::policy::{Mode, RouteSettings};
use crate::enforce::testing::{
    NOW, SIGNERS, Signer, TestRequest, b64, enforcer_of_proofs, issuers, payload, route, token, token_of,
};
use crate::replays::ProofUse;
use crate::replays::nonces::UnknownPeriod;
use crate::time::Timestamp;

fn gate(constraint: SenderConstraint, dpop: DpopSettings) -> Enforcer {
    let mut issuers = issuers();
    issuers[0].rules.sender_constraint = constraint;
    let routes = vec![
        route("/deals/{*rest}"),
        RouteSettings { anonymous: true, ..route("/open") },
        RouteSettings { mode: Mode::Shadow, ..route("/shadow") },
    ];
    enforcer_of_proofs(issuers, routes, dpop)
}

fn bound_to(signer: &Signer) -> String {
    token(&payload(json!({ "cnf": { "jkt": b64(&signer.thumbprint()) } })))
}

/// A proof for `GET /deals/7` with this token, with changes.
fn proof(token: &str, changes: Value) -> String {
    let payload = changed(proof_payload(token), changes);
    token_of(&SIGNERS.es256, &header().to_string(), &payload.to_string())
}

fn ask<'a>(gate: &'a Enforcer, scheme: &str, token: &str, proofs: Vec<String>) -> TestRequest<'a> {
    TestRequest {
        authorization: Some(format!("{scheme} {token}")),
        proofs,
        ..TestRequest::new(gate, "/deals/7")
    }
}

/// The decision once every question is answered.
async fn settled(request: TestRequest<'_>) -> Result<Permit, Denial> {
    let mut request = request;
    for _ in 0..4 {
        match request.decide().verdict {
            Verdict::Allow(permit) => return Ok(permit),
            Verdict::Deny(denial) => return Err(denial),
            Verdict::Ask(ask) => request.asked = request.enforcer.find_out(&ask, request.asked).await,
        }
    }
    panic!("asked again and again");
}

async fn refused(request: TestRequest<'_>) -> (Reason, Option<ProofFault>) {
    let denial = settled(request).await.expect_err("a denial");
    (denial.reason, denial.possession.fault)
}

#[tokio::test]
async fn a_bound_token_passes_once_with_each_proof() {
    let gate = gate(SenderConstraint::WhenBound, DpopSettings::default());
    let token = bound_to(&SIGNERS.es256);
    let send = |jti: &str| ask(&gate, "DPoP", &token, vec![proof(&token, json!({ "jti": jti }))]);
    for jti in ["a", "b"] {
        let permit = settled(send(jti)).await.expect("a permit");
        assert!(permit.pass().expect("a token").is_proven());
        assert_eq!(permit.nonce(), None);
        assert_eq!(refused(send(jti)).await, (Reason::BadProof, Some(ProofFault::Replayed)));
    }
    let Verdict::Ask(Ask::Proof { keep, .. }) = send("c").decide().verdict else { panic!("nothing asked") };
    assert_eq!(keep.as_secs(), 90, "max_age and leeway");
    let unknown = TestRequest { asked: Asked::NOTHING.told_proof(ProofUse::Unknown), ..send("c") };
    assert_eq!(refused(unknown).await, (Reason::StateUnavailable, None));
}

#[tokio::test]
async fn the_scheme_must_be_that_of_the_token() {
    let gate = gate(SenderConstraint::WhenBound, DpopSettings::default());
    let (bound, free) = (bound_to(&SIGNERS.es256), token(&payload(json!({}))));
    let stolen = bound_to(&SIGNERS.stranger);
    let good = |token: &str| proof(token, json!({}));
    for (scheme, token, proofs, expected) in [
        ("Bearer", &bound, vec![], (Reason::UnprovenToken, None)),
        ("Bearer", &bound, vec![good(&bound)], (Reason::UnprovenToken, None)),
        ("DPoP", &free, vec![], (Reason::UnprovenToken, None)),
        ("DPoP", &free, vec![good(&free)], (Reason::UnprovenToken, None)),
        ("DPoP", &bound, vec![], (Reason::BadProof, Some(ProofFault::Absent))),
        ("DPoP", &bound, vec![good(&bound), good(&bound)], (Reason::BadProof, Some(ProofFault::Several))),
        ("DPoP", &bound, vec![good(&free)], (Reason::BadProof, Some(ProofFault::Token))),
        ("DPoP", &stolen, vec![good(&stolen)], (Reason::BadProof, Some(ProofFault::OtherKey))),
        (
            "DPoP",
            &bound,
            vec![proof(&bound, json!({ "htu": "https://api.example/deals/8" }))],
            (Reason::BadProof, Some(ProofFault::Uri)),
        ),
    ] {
        let request = || ask(&gate, scheme, token, proofs.clone());
        assert_eq!(refused(request()).await, expected, "{scheme}");
        if scheme == "Bearer" {
            assert_eq!(request().reason(), Some(expected.0), "as explained");
        }
    }
    assert!(
        settled(ask(&gate, "Bearer", &free, vec![good(&free), good(&free)])).await.is_ok(),
        "not looked at"
    );
    // A fault of the token comes first, and its challenge uses the scheme of the request.
    let expired = token(&payload(json!({ "exp": NOW - 100, "iat": NOW - 200 })));
    let denial = settled(ask(&gate, "DPoP", &expired, vec![])).await.expect_err("expired");
    assert_eq!(denial.reason, Reason::Expired);
    assert_eq!(denial.possession.scheme, crate::enforce::bearer::TokenScheme::Dpop);
}

#[tokio::test]
async fn issuers_say_what_their_tokens_must_be_bound_to() {
    use SenderConstraint::{Dpop, Either, IgnoreDpop, Mtls, WhenBound};
    let jkt = b64(&SIGNERS.es256.thumbprint());
    let with = |cnf: Value| token(&payload(json!({ "cnf": cnf })));
    let free = token(&payload(json!({})));
    let keyed = with(json!({ "jkt": jkt }));
    let certified = with(json!({ "x5t#S256": b64(&[7; 32]) }));
    let both = with(json!({ "x5t#S256": b64(&[7; 32]), "jkt": jkt }));
    let unproven = Some(Reason::UnprovenToken);
    let mismatch = Some(Reason::CertificateMismatch);
    // As bearer with the certificate; with a proof and the certificate; with a proof alone.
    for (constraint, token, expected) in [
        (WhenBound, &free, [None, unproven, unproven]),
        (WhenBound, &keyed, [unproven, None, None]),
        (WhenBound, &certified, [None, unproven, mismatch]),
        (WhenBound, &both, [unproven, None, mismatch]),
        (Dpop, &free, [unproven, unproven, unproven]),
        (Dpop, &keyed, [unproven, None, None]),
        (Dpop, &certified, [unproven, unproven, mismatch]),
        (Dpop, &both, [unproven, None, mismatch]),
        (Mtls, &free, [mismatch, mismatch, mismatch]),
        (Mtls, &keyed, [mismatch, mismatch, mismatch]),
        (Mtls, &certified, [None, unproven, mismatch]),
        (Mtls, &both, [unproven, None, mismatch]),
        (Either, &free, [unproven, unproven, unproven]),
        (Either, &keyed, [unproven, None, None]),
        (Either, &certified, [None, unproven, mismatch]),
        (Either, &both, [unproven, None, mismatch]),
        (IgnoreDpop, &free, [None, unproven, unproven]),
        (IgnoreDpop, &keyed, [None, None, None]),
        (IgnoreDpop, &certified, [None, unproven, mismatch]),
        (IgnoreDpop, &both, [None, None, mismatch]),
    ] {
        let gate = gate(constraint, DpopSettings::default());
        let ways = [("Bearer", true), ("DPoP", true), ("DPoP", false)];
        for (way, ((scheme, certificate), expected)) in ways.into_iter().zip(expected).enumerate() {
            let proofs = vec![proof(token, json!({ "jti": way.to_string() }))];
            let certificate = certificate.then_some([7; 32]);
            let request = TestRequest { certificate, ..ask(&gate, scheme, token, proofs) };
            let found = settled(request).await.err().map(|denial| denial.reason);
            assert_eq!(found, expected, "{constraint:?} {token} {scheme} {certificate:?}");
        }
    }
}

#[tokio::test]
async fn a_nonce_is_demanded_and_then_taken() {
    let gate = gate(SenderConstraint::Dpop, DpopSettings { nonce: true, ..DpopSettings::default() });
    let token = bound_to(&SIGNERS.es256);
    let send = |changes: Value| ask(&gate, "DPoP", &token, vec![proof(&token, changes)]);
    let denial = settled(send(json!({}))).await.expect_err("no nonce");
    assert_eq!((denial.reason, denial.possession.fault), (Reason::NonceRequired, Some(ProofFault::Nonce)));
    let nonce = denial.possession.nonce.expect("a nonce");
    let permit = settled(send(json!({ "nonce": &*nonce }))).await.expect("a permit");
    assert_eq!(permit.nonce(), Some(&*nonce), "for the next proof");
    assert_eq!(refused(send(json!({ "nonce": &*nonce }))).await.1, Some(ProofFault::Replayed));
    for bad in ["x", ""] {
        assert_eq!(
            refused(send(json!({ "nonce": bad }))).await,
            (Reason::NonceRequired, Some(ProofFault::Nonce))
        );
    }
    // A nonce does not cure other faults of a proof.
    assert_eq!(refused(send(json!({ "htm": "POST" }))).await, (Reason::BadProof, Some(ProofFault::Method)));
    let later = |seconds: i64, jti: &str| {
        let changes = json!({ "nonce": &*nonce, "jti": jti, "iat": NOW + seconds });
        TestRequest { at: Timestamp::from_secs(NOW + seconds), ..send(changes) }
    };
    assert!(settled(later(60, "late")).await.is_ok(), "one bucket later");
    assert_eq!(refused(later(120, "later")).await, (Reason::NonceRequired, Some(ProofFault::Nonce)));
}

#[tokio::test]
async fn without_the_key_of_nonces_nothing_passes() {
    let gate = gate(SenderConstraint::Dpop, DpopSettings { nonce: true, ..DpopSettings::default() });
    let token = bound_to(&SIGNERS.es256);
    let request = ask(&gate, "DPoP", &token, vec![proof(&token, json!({}))]);
    let Verdict::Ask(question @ Ask::NonceKey(_)) = request.decide().verdict else { panic!("nothing asked") };
    // The period may have changed in the meantime.
    let other = TestRequest { asked: Asked::NOTHING.and(&Ask::NonceKey(UnknownPeriod(0))), ..request };
    assert!(matches!(other.decide().verdict, Verdict::Ask(Ask::NonceKey(_))));
    let vain = TestRequest { asked: Asked::NOTHING.and(&question), ..other };
    let Verdict::Deny(denial) = vain.decide().verdict else { panic!("not denied") };
    assert_eq!(denial.reason, Reason::StateUnavailable);
}

#[tokio::test]
async fn a_public_url_takes_the_place_of_the_host() {
    let public_url = UriOrigin::parse("https://public.example:8443");
    assert!(public_url.is_some());
    let gate = gate(SenderConstraint::Dpop, DpopSettings { public_url, ..DpopSettings::default() });
    let token = bound_to(&SIGNERS.es256);
    let send = |htu: &str| ask(&gate, "DPoP", &token, vec![proof(&token, json!({ "htu": htu }))]);
    assert_eq!(refused(send("https://api.example/deals/7")).await.1, Some(ProofFault::Uri));
    assert!(settled(send("https://public.example:8443/deals/7")).await.is_ok());
}

#[tokio::test]
async fn routes_without_enforcement_or_need_judge_proofs_all_the_same() {
    let gate = gate(SenderConstraint::WhenBound, DpopSettings { nonce: true, ..DpopSettings::default() });
    let token = bound_to(&SIGNERS.es256);
    let at =
        |path: &'static str, scheme: &str, proofs| TestRequest { path, ..ask(&gate, scheme, &token, proofs) };
    assert_eq!(refused(at("/open", "Bearer", vec![])).await.0, Reason::UnprovenToken);
    assert!(settled(TestRequest::new(&gate, "/open")).await.is_ok());
    let permit = settled(at("/shadow", "Bearer", vec![])).await.expect("observed");
    assert_eq!(permit.shadow().map(|denial| denial.reason), Some(Reason::UnprovenToken));
    let shadow = |nonce: Value| {
        let changes = json!({ "htu": "https://api.example/shadow", "nonce": nonce });
        at("/shadow", "DPoP", vec![proof(&token, changes)])
    };
    let permit = settled(shadow(Value::Null)).await.expect("observed");
    assert_eq!(permit.shadow().map(|denial| denial.reason), Some(Reason::NonceRequired));
    let nonce = permit.nonce().expect("a nonce to go on with").to_owned();
    for expected in [None, Some(Reason::BadProof)] {
        let permit = settled(shadow(nonce.clone().into())).await.expect("observed");
        assert_eq!(permit.shadow().map(|denial| denial.reason), expected);
        assert_eq!(permit.nonce(), Some(&*nonce));
    }
}

#[tokio::test]
async fn who_presents_nothing_learns_of_dpop_where_it_is_taken() {
    for (constraint, announced, expected) in [
        (SenderConstraint::WhenBound, false, false),
        (SenderConstraint::WhenBound, true, true),
        (SenderConstraint::Dpop, false, true),
        (SenderConstraint::Either, false, true),
    ] {
        let gate = gate(constraint, DpopSettings { announced, ..DpopSettings::default() });
        let denial = settled(TestRequest::new(&gate, "/deals/7")).await.expect_err("nothing presented");
        assert_eq!(
            (denial.reason, denial.possession.takes_dpop),
            (Reason::Missing, expected),
            "{constraint:?}"
        );
    }
}
