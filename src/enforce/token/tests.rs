//! The bounds of a token's validity, the memory it takes, and the session found for it.

use serde_json::json;

use super::*;
use crate::enforce::decide::{InForce, Permit, Verdict};
use crate::enforce::testing::{TestRequest, enforcer_with, issuers, now, payload, route, token};
use crate::sessions;

#[test]
fn each_bound_has_its_leeway_and_the_first_that_fails_is_the_reason() {
    let secs = Timestamp::from_secs;
    let validity = |issued_at, expires_at, not_before: Option<i64>| Validity {
        issued_at: secs(issued_at),
        expires_at: secs(expires_at),
        not_before: not_before.map(secs),
    };
    let leeway = Duration::from_secs(30);
    for (validity, now, expected) in [
        (validity(0, 600, None), 629_999, Ok(())),
        (validity(0, 600, None), 630_000, Err(Reason::Expired)),
        (validity(0, 600, None), 630_001, Err(Reason::Expired)),
        (validity(0, 600, Some(100)), 70_001, Ok(())),
        (validity(0, 600, Some(100)), 70_000, Ok(())),
        (validity(0, 600, Some(100)), 69_999, Err(Reason::NotYetValid)),
        (validity(100, 600, None), 70_001, Ok(())),
        (validity(100, 600, None), 70_000, Ok(())),
        (validity(100, 600, None), 69_999, Err(Reason::IssuedInFuture)),
        (validity(100, 600, Some(100)), 69_999, Err(Reason::NotYetValid)),
        (validity(100, 30, Some(100)), 60_000, Err(Reason::Expired)),
    ] {
        assert_eq!(validity.judge(leeway, Timestamp::from_millis(now)), expected, "{validity:?} at {now}");
    }
}

fn gate() -> crate::enforce::decide::Enforcer {
    let settings = sessions::Settings {
        idle_timeouts: Some(Duration::from_secs(60)).into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: false,
    };
    let in_force = InForce { sessions: Arc::new(Sessions::new(settings)), ..InForce::unlimited() };
    enforcer_with(issuers(), vec![route("/{*rest}")], in_force)
}

fn permit(ask: &TestRequest<'_>) -> Permit {
    let Verdict::Allow(permit) = ask.decide().verdict else { panic!("not allowed") };
    permit
}

#[test]
fn a_token_takes_the_memory_of_each_text_it_holds() {
    let gate = gate();
    let header = size_of::<(HeaderName, HeaderValue)>() + 40;
    let fixed = size_of::<VerifiedToken>();
    // The hash of `sub`, `sub` and `jti`; audiences, scopes and roles with a terminator each, and the client;
    // the identity headers.
    let usual = (12 + 5 + 7) + (20 + 22 + 7 + 3) + (4 * header + 5 + 3 + 21 + 6);
    for (changes, expected) in [
        (json!({}), usual),
        (json!({"tenant": "acme"}), usual + 4 + header + 4),
        (json!({"jti": null}), usual - 7),
        (json!({"aud": ["api", "x"]}), usual - 20 + 4 + 2),
        (json!({"client_id": null}), usual - 3 - header - 3),
        (json!({"scope": ""}), usual - 22 - 21),
        (json!({"roles": ["editor", "x"]}), usual + 2 + 2),
    ] {
        let token = token(&payload(changes.clone()));
        let token = TestRequest::new(&gate, "/x").token(&token).decide().token.expect("a token");
        assert_eq!(token.size(), fixed + expected, "{changes}");
        assert_eq!(token.lifetime(), Duration::from_secs(610));
    }
    let named = TestRequest::new(&gate, "/x").token(&token(&payload(json!({"sid": "s1"})))).decide().token;
    let named = named.expect("a token");
    let names = named.facts.names.as_ref().expect("the name of its log-in session").size();
    assert_eq!(named.size(), fixed + usual + names);
}

#[test]
fn a_session_that_was_kept_serves_until_it_leaves_the_table() {
    let gate = gate();
    let permit_of = |jti: &str| {
        let token = token(&payload(json!({ "jti": jti })));
        permit(&TestRequest::new(&gate, "/x").token(&token))
    };
    let at = |second: u64| Now::at_millis(now().plus(Duration::from_secs(second)).as_millis());
    let (permit, sessions) = (permit_of("one"), gate.sessions());
    let token = permit.token().expect("a token");
    assert!(token.session(sessions).is_none(), "not used yet");
    gate.begin(&permit, at(0)).expect("in use");
    assert!(matches!(token.session(sessions), Some(Known::Kept(_))));
    // More tokens than the table has space for.
    for jti in 0..50 {
        gate.begin(&permit_of(&jti.to_string()), at(1)).expect("in use");
    }
    assert!(sessions.left().capacity > 0);
    assert!(matches!(token.session(sessions), Some(Known::Kept(kept)) if kept.is_evicted()), "no other");
    gate.begin(&permit, at(2)).expect("in use by its issue");
    for _ in 0..2 {
        let Some(Known::Found(found)) = token.session(sessions) else { panic!("not looked for") };
        assert!(!found.is_evicted());
        assert_eq!(found.last_used(), at(2).monotonic);
    }
}

#[test]
fn a_session_of_another_proof_is_found_and_kept() {
    let gate = gate();
    let text = token(&payload(json!({})));
    let used = permit(&TestRequest::new(&gate, "/x").token(&text));
    gate.begin(&used, Now::at_millis(now().as_millis())).expect("in use");
    // The same `jti`, signed again: another string of the same token.
    let again = token(&payload(json!({})));
    assert_ne!(text, again);
    let again = permit(&TestRequest::new(&gate, "/x").token(&again));
    let token = again.token().expect("a token");
    assert!(!Arc::ptr_eq(token, used.token().expect("a token")));
    assert!(token.session(gate.sessions()).is_some());
    assert!(token.standing.session().is_some(), "kept with it");
}
