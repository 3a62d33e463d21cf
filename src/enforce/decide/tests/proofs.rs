//! What is remembered of tokens seen before: for how long, how much, and across which changes of the
//! configuration.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::enforce::Settings;
use crate::enforce::again::Grounds;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::decide::{Ask as Question, Asked, Enforcer, InForce, Proof, TrustedIssuer, Verdict};
use crate::enforce::denial::Reason;
use crate::enforce::policy::IdentitySettings;
use crate::enforce::testing::{
    ISSUER, SIGNERS, TestRequest, enforcer_with, identity, issuer, issuers, key, now, payload, route, rules,
    token,
};
use crate::identity::{ClientKey, IssuerKey, SubjectKey};
use crate::keys::set::KeySet;
use crate::metrics::Metrics;
use crate::revocations::Ends;
use crate::sessions::{self, Sessions};
use crate::state::Store;
use crate::state::redis::FirstUse;
use crate::time::{Now, Timestamp};
use jsonwebtoken::Algorithm::ES256;

fn numbered(index: usize) -> String {
    token(&payload(json!({"jti": index.to_string()})))
}

fn proof(gate: &Enforcer, token: &str) -> Proof {
    let judgement = TestRequest::new(gate, "/x").token(token).decide();
    assert!(matches!(judgement.verdict, Verdict::Allow(_)), "{judgement:?}");
    judgement.proof
}

fn with(
    issuers: Vec<TrustedIssuer>,
    identity: IdentitySettings,
    proofs: usize,
    in_force: InForce,
) -> Enforcer {
    let settings = Settings {
        routes: vec![route("/{*rest}")],
        identity,
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs,
    };
    Enforcer::new(settings, issuers, in_force, &Metrics::new().expect("instruments")).expect("sound routes")
}

#[test]
fn a_reload_keeps_proofs_that_it_would_make_again_and_no_others() {
    let issuers = issuers();
    let token = numbered(1);
    let gate = || with(issuers.clone(), identity(), 10, InForce::unlimited());
    let before = gate();
    assert_eq!(proof(&before, &token), Proof::Fresh);
    assert_eq!(proof(&gate().after(&before), &token), Proof::Cached);

    let other_identity = with(issuers.clone(), IdentitySettings::default(), 10, InForce::unlimited());
    let mut changed = issuers.clone();
    changed[0].rules.max_lifetime += Duration::from_secs(1);
    let other_rules = with(changed, identity(), 10, InForce::unlimited());
    let mut changed = issuers.clone();
    changed[0] = issuer(ISSUER, &[ES256], KeySet::new(vec![key("es", ES256, &SIGNERS.es256)]));
    changed[0].rules = rules(ISSUER, &[ES256]);
    let other_keys = with(changed, identity(), 10, InForce::unlimited());
    let mut changed = issuers.clone();
    changed.pop();
    let fewer = with(changed, identity(), 10, InForce::unlimited());
    for gate in [other_identity, other_rules, other_keys, fewer] {
        assert_eq!(proof(&gate.after(&before), &token), Proof::Fresh);
    }
}

#[test]
fn no_more_are_remembered_than_there_is_room_for() {
    const ROOM: u64 = 20;
    let gate = with(issuers(), identity(), 20, InForce::unlimited());
    for index in 0..60 {
        assert_eq!(proof(&gate, &numbered(index)), Proof::Fresh);
    }
    let (proofs, bytes) = gate.verifier.proofs();
    assert!((10..=ROOM).contains(&proofs) && bytes <= ROOM * 2048, "{proofs} of {bytes} bytes");
    // Large ones count by their size.
    for index in 0..60 {
        let scopes = vec!["x".repeat(1_000); 4];
        assert_eq!(
            proof(&gate, &token(&payload(json!({"jti": index.to_string(), "roles": scopes})))),
            Proof::Fresh
        );
    }
    let (proofs, bytes) = gate.verifier.proofs();
    assert!((1..=5).contains(&proofs) && bytes <= ROOM * 2048, "{proofs} of {bytes} bytes");
}

#[test]
fn what_a_worker_has_at_hand_is_asked_for_again_now_and_then_and_belongs_to_one_table() {
    let (gate, other) = (
        with(issuers(), identity(), 20, InForce::unlimited()),
        with(issuers(), identity(), 20, InForce::unlimited()),
    );
    let token = numbered(1);
    let at = |gate: &Enforcer, second| {
        let at = now().plus(Duration::from_secs(second));
        TestRequest { at, ..TestRequest::new(gate, "/x").token(&token) }.decide().proof
    };
    assert_eq!(at(&gate, 0), Proof::Fresh);
    for second in [1, 9, 11, 30, 31] {
        assert_eq!(at(&gate, second), Proof::Cached, "{second}");
    }
    assert_eq!(at(&other, 31), Proof::Fresh, "another table has another key");
    assert_eq!(at(&gate, 31), Proof::Cached);
}

#[test]
fn proofs_of_tokens_that_are_idle_or_dead_are_forgotten() {
    // The table's own clock cannot be set, so this waits for short times.
    let settings = sessions::Settings {
        idle_timeouts: Some(Duration::from_millis(50)).into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: false,
    };
    let in_force = InForce { sessions: Arc::new(Sessions::new(settings)), ..InForce::unlimited() };
    let gate = enforcer_with(issuers(), vec![route("/{*rest}")], in_force);
    let token = token(&payload(json!({"iat": crate::enforce::testing::NOW})));
    assert_eq!(proof(&gate, &token), Proof::Fresh);
    assert_eq!(gate.verifier.proofs().0, 1);
    testkit::eventually("the proof is forgotten", || (gate.verifier.proofs().0 == 0).then_some(()));
}

#[test]
fn a_token_that_was_used_before_the_event_was_issued_before_it() {
    let ahead = token(&payload(json!({"iat": crate::enforce::testing::NOW + 20})));
    let subject = SubjectKey::new(ISSUER, "alice");
    let second = |second| now().plus(Duration::from_secs(second));
    for ends in [
        Ends::Subject(subject, second(1)),
        Ends::Client(ClientKey::new(ISSUER, "app"), second(1)),
        Ends::Issuer(IssuerKey::new(ISSUER), second(1)),
        Ends::Roles { subject, at: second(1), version: None },
    ] {
        let in_force = InForce::unlimited();
        let ask = |gate: &Enforcer, after| {
            let ask = TestRequest { at: second(after), ..TestRequest::new(gate, "/x").token(&ahead) };
            let judgement = ask.decide();
            if let Verdict::Allow(permit) = &judgement.verdict {
                assert_eq!(gate.begin(permit, ask.now()), Ok(()));
            }
            matches!(judgement.verdict, Verdict::Allow(_))
        };
        let first = with(issuers(), identity(), 10, in_force.clone());
        assert!(ask(&first, 0), "{ends:?}");
        in_force.revocations.apply([ends]);
        assert!(!ask(&first, 2), "{ends:?}");
        let without_proof = with(issuers(), identity(), 10, in_force);
        assert!(!ask(&without_proof, 60), "{ends:?}: its session says when it was first used");
    }
}

#[test]
fn a_token_that_was_only_denied_before_the_event_was_here_before_it_to_every_question() {
    let ahead = token(&payload(json!({"iat": crate::enforce::testing::NOW + 20})));
    let second = |second| now().plus(Duration::from_secs(second));
    let in_force = InForce::unlimited();
    let gate = with(issuers(), identity(), 10, in_force.clone());
    let ask = |after| TestRequest { at: second(after), ..TestRequest::new(&gate, "/x").token(&ahead) };
    assert!(matches!(ask(0).decide().verdict, Verdict::Allow(_)), "seen, and never used");
    in_force.revocations.apply([Ends::Subject(SubjectKey::new(ISSUER, "alice"), second(1))]);
    // Long after its `iat`: the event ends the token only because it was seen before the event.
    let told = ask(30).explain().unwrap();
    assert_eq!(told.reason, Some(Reason::SubjectRevoked), "{told:?}");
    let Verdict::Deny(denial) = ask(30).decide().verdict else { panic!("allowed") };
    assert_eq!(denial.reason, Reason::SubjectRevoked);
    let revocation = told.checks.iter().find(|made| made.check == "revocation").unwrap();
    assert!(revocation.detail.contains("and was already seen at"), "{revocation:?}");
}

#[test]
fn a_token_that_came_after_the_event_of_the_same_second_passes() {
    let in_force = InForce::unlimited();
    let ends = Ends::Subject(SubjectKey::new(ISSUER, "alice"), now());
    in_force.revocations.apply([ends]);
    let gate = with(issuers(), identity(), 10, in_force.clone());
    let issued = |after: i64| token(&payload(json!({"iat": crate::enforce::testing::NOW + after})));
    let is_allowed = |gate: &Enforcer, token: &str| {
        let ask = TestRequest::new(gate, "/x").token(token);
        let Verdict::Allow(permit) = ask.decide().verdict else { return false };
        gate.begin(&permit, ask.now()).is_ok()
    };
    assert!(!is_allowed(&gate, &issued(0)) && is_allowed(&gate, &issued(2)));
    in_force.revocations.apply(std::iter::empty());
    assert!(is_allowed(&gate, &issued(2)), "judged again with its session");
    let later = Ends::Issuer(IssuerKey::new(ISSUER), now().plus(Duration::from_secs(1)));
    in_force.revocations.apply([later]);
    assert!(!is_allowed(&gate, &issued(2)), "seen before that one");
}

#[test]
fn others_are_asked_for_the_first_use_only_when_an_event_lies_shortly_before_the_issue() {
    use Outcome::{Allowed, Asks, Denied};
    let (alice, bob) = (SubjectKey::new(ISSUER, "alice"), SubjectKey::new(ISSUER, "bob"));
    let millis = |millis| Timestamp::from_millis(now().as_millis() + millis);
    let at = |first| Some(FirstUse::At(millis(first)));
    let ordinary = Some(FirstUse::Ordinary);
    // In seconds from now: issue and event; then the answer given. `leeway` is 30 s.
    for (issued, event, told, expected) in [
        (0, -1, None, Asks),
        (0, -30, None, Asks),
        (0, -31, None, Allowed),
        (0, 0, None, Denied(Reason::SubjectRevoked)),
        (0, -1, ordinary, Allowed),
        (0, -1, Some(FirstUse::Unknown), Denied(Reason::StateUnavailable)),
        (0, -1, at(-1_000), Denied(Reason::SubjectRevoked)),
        (20, 1, None, Asks),
        (20, 1, at(0), Denied(Reason::SubjectRevoked)),
        (20, 1, at(1_999), Denied(Reason::SubjectRevoked)),
        (20, 1, at(2_000), Allowed),
        (20, 1, ordinary, Allowed),
    ] {
        let in_force = shared();
        let event = millis(event * 1_000);
        in_force.revocations.apply([Ends::Subject(alice, event), Ends::Subject(bob, event)]);
        let gate = with(issuers(), identity(), 10, in_force.clone());
        let token = token(&payload(json!({"iat": crate::enforce::testing::NOW + issued})));
        let asked = told.map_or(Asked::NOTHING, |told| Asked::NOTHING.told_first_use(told));
        let decide = |asked| {
            outcome(&TestRequest { asked, at: millis(2_000), ..TestRequest::new(&gate, "/x").token(&token) })
        };
        assert_eq!(decide(asked), expected, "{issued} {event} {told:?}");
        if told.is_some_and(|told| told != FirstUse::Unknown) {
            in_force.revocations.apply([Ends::Subject(bob, millis(0))]);
            assert_eq!(decide(Asked::NOTHING), expected, "{issued} {event} {told:?}: asked once");
        }
        let alone = InForce { sessions: InForce::unlimited().sessions, ..in_force };
        let alone = with(issuers(), identity(), 10, alone);
        let ask = TestRequest { at: millis(2_000), ..TestRequest::new(&alone, "/x").token(&token) };
        assert_ne!(outcome(&ask), Asks, "there is nobody to ask");
    }
    let others = shared();
    others.revocations.apply([Ends::Subject(bob, millis(-1_000))]);
    let gate = with(issuers(), identity(), 10, others);
    let ask =
        TestRequest::new(&gate, "/x").token(&token(&payload(json!({"iat": crate::enforce::testing::NOW}))));
    assert_eq!(outcome(&ask), Allowed, "another subject's event");
}

#[test]
fn a_stream_is_decided_again_when_others_must_be_asked_for_the_first_use() {
    let in_force = shared();
    let gate = Arc::new(with(issuers(), identity(), 10, in_force.clone()));
    let token = token(&payload(json!({"iat": crate::enforce::testing::NOW})));
    let ask =
        TestRequest { at: now().plus(Duration::from_secs(2)), ..TestRequest::new(&gate, "/x").token(&token) };
    let Verdict::Allow(permit) = ask.decide().verdict else { panic!("allowed") };
    gate.begin(&permit, ask.now()).unwrap();
    let grounds = Grounds::new(&gate, &permit);
    assert!(grounds.stand(&gate));
    // Published since it was judged, but raising no question: long before the issue, or for another subject.
    let bob = SubjectKey::new(ISSUER, "bob");
    in_force.revocations.apply([Ends::Subject(bob, now().minus(Duration::from_secs(1)))]);
    assert!(grounds.stand(&gate));
    // A late signal of an event before the issue.
    let alice = SubjectKey::new(ISSUER, "alice");
    in_force.revocations.apply([Ends::Subject(alice, now().minus(Duration::from_secs(1)))]);
    assert!(!grounds.stand(&gate));
    assert_eq!(grounds.judge(None, ask.now()), Ok(()), "not ended before somebody knows");
    assert_eq!(outcome(&ask), Outcome::Asks);
    let asked = Asked::NOTHING.told_first_use(FirstUse::Ordinary);
    assert_eq!(outcome(&TestRequest { asked, ..ask }), Outcome::Allowed);
    assert!(grounds.stand(&gate));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Allowed,
    Denied(Reason),
    Asks,
}

fn outcome(ask: &TestRequest<'_>) -> Outcome {
    match ask.decide().verdict {
        Verdict::Allow(_) => Outcome::Allowed,
        Verdict::Deny(denial) => Outcome::Denied(denial.reason),
        Verdict::Ask(Question::FirstUse { .. }) => Outcome::Asks,
        Verdict::Ask(ask) => panic!("asked for {ask:?}"),
    }
}

/// State like that of a gate whose store others share.
fn shared() -> InForce {
    let settings = sessions::Settings {
        idle_timeouts: None.into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: true,
    };
    let store = Store::in_memory(Now::at_millis(0)).unwrap();
    let sessions = Arc::new(Sessions::sharing(settings, store, Duration::from_secs(1)));
    InForce { sessions, ..InForce::unlimited() }
}
