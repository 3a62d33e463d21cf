//! What is remembered of tokens seen before: for how long, how much, and over which changes of the configuration.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::enforce::Settings;
use crate::enforce::decide::{Enforcer, InForce, Issuer, Proof, Verdict};
use crate::enforce::policy::IdentitySettings;
use crate::enforce::testing::{
    Ask, ISSUER, SIGNERS, enforcer_with, identity, issuer, issuers, key, now, payload, route, rules, token,
};
use crate::keys::set::KeySet;
use crate::metrics::Metrics;
use crate::sessions::{self, Sessions};
use jsonwebtoken::Algorithm::ES256;

fn numbered(index: usize) -> String {
    token(&payload(json!({"jti": index.to_string()})))
}

fn proof(gate: &Enforcer, token: &str) -> Proof {
    let judgement = Ask::new(gate, "/x").token(token).decide();
    assert!(matches!(judgement.verdict, Verdict::Allow(_)), "{judgement:?}");
    judgement.proof
}

fn with(issuers: Vec<Issuer>, identity: IdentitySettings, proofs: usize, in_force: InForce) -> Enforcer {
    let settings = Settings { routes: vec![route("/{*rest}")], identity, proofs };
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
fn no_more_are_remembered_than_there_is_room_for_and_the_last_used_stay() {
    let gate = with(issuers(), identity(), 8, InForce::unlimited());
    let tokens: Vec<String> = (0..12).map(numbered).collect();
    let at = |token: &str, second| {
        let ask = Ask { at: now().plus(Duration::from_secs(second)), ..Ask::new(&gate, "/x").token(token) };
        let judgement = ask.decide();
        let Verdict::Allow(permit) = &judgement.verdict else { panic!("{judgement:?}") };
        assert_eq!(gate.begin(permit, ask.at), Ok(()));
        judgement.proof
    };
    for (second, token) in (1..).zip(&tokens) {
        assert_eq!(at(token, second), Proof::Fresh);
        assert_eq!(at(&tokens[0], second), Proof::Cached, "in use all the time");
    }
    let cached = tokens.iter().rev().map(|token| at(token, 20)).filter(|proof| *proof == Proof::Cached);
    assert!((1..=8).contains(&cached.count()));
}

#[test]
fn a_sweep_forgets_tokens_that_are_idle_or_expired() {
    let settings = |idle| sessions::Settings {
        idle_timeout: Some(Duration::from_secs(idle)),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: false,
    };
    for (idle, after, kept) in [(60, 30, Proof::Cached), (60, 90, Proof::None), (86_400, 90, Proof::Cached)] {
        let sessions = Arc::new(Sessions::new(settings(idle)));
        let in_force = InForce { sessions, ..InForce::unlimited() };
        let gate = enforcer_with(issuers(), vec![route("/{*rest}")], in_force);
        let token = token(&payload(json!({"iat": crate::enforce::testing::NOW})));
        assert_eq!(proof(&gate, &token), Proof::Fresh);
        gate.sweep(1, now().plus(Duration::from_secs(after)));
        // What was found idle is refused whenever it comes; the clock need not move for it.
        let judgement = Ask::new(&gate, "/x").token(&token).decide();
        let found =
            if matches!(judgement.verdict, Verdict::Allow(_)) { judgement.proof } else { Proof::None };
        assert_eq!(found, kept, "idle after {idle} s, swept after {after} s");
        gate.sweep(1, now().plus(Duration::from_secs(100_000)));
        assert_ne!(Ask::new(&gate, "/x").token(&token).decide().proof, Proof::Cached, "expired");
    }
}
