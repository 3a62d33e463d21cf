//! What a permit holds, when it counts as a use of its token, and what makes it void before it is used.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde_json::json;

use crate::enforce::Settings;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::decide::{Enforcer, InForce, Permit, Verdict};
use crate::enforce::denial::Reason;
use crate::enforce::policy::RouteSettings;
use crate::enforce::testing::{
    ISSUER, NOW, TestRequest, enforcer_with, identity, issuers, now, payload, route, token,
};
use crate::identity::SubjectKey;
use crate::metrics::Metrics;
use crate::revocations::{Ends, Revocations};
use crate::sessions::{self, Sessions};
use crate::time::{Now, Timestamp};

/// A gate at which a token is idle after a minute.
fn gate() -> Enforcer {
    let settings = sessions::Settings {
        idle_timeouts: Some(Duration::from_secs(60)).into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: false,
    };
    let in_force = InForce { sessions: Arc::new(Sessions::new(settings)), ..InForce::unlimited() };
    let routes = vec![
        RouteSettings { anonymous: true, ..route("/open") },
        RouteSettings { upstream: 3, ..route("/{*rest}") },
    ];
    enforcer_with(issuers(), routes, in_force)
}

fn permit(ask: &TestRequest<'_>) -> Permit {
    let Verdict::Allow(permit) = ask.decide().verdict else { panic!("not allowed") };
    permit
}

fn after(second: u64) -> Now {
    Now::at_millis(now().plus(Duration::from_secs(second)).as_millis())
}

#[test]
fn a_permit_names_the_upstream_and_the_token_in_force() {
    let gate = gate();
    let token = token(&payload(json!({})));
    let permit_of = |path| permit(&TestRequest::new(&gate, path).token(&token));
    let (closed, open) = (permit_of("/x"), permit_of("/open"));
    assert_eq!((closed.route().upstream(), open.route().upstream()), (3, 0));
    for permit in [&closed, &open] {
        let (token, pass) = (permit.token().expect("a token"), permit.pass().expect("a token"));
        assert!(Arc::ptr_eq(token, &pass.token));
        assert_eq!(token.jti.as_deref(), Some("token-1"));
        assert!(!pass.is_proven(), "it is bound to nothing");
    }
    let nobody = permit(&TestRequest::new(&gate, "/open"));
    assert!(nobody.token().is_none() && nobody.pass().is_none());
    assert_eq!(gate.begin(&nobody, after(1_000)), Ok(()), "there is no token to use");
}

#[test]
fn only_a_request_that_needs_its_token_uses_it() {
    let gate = gate();
    let token = token(&payload(json!({})));
    let permit_of = |path| permit(&TestRequest::new(&gate, path).token(&token));
    let (closed, open) = (permit_of("/x"), permit_of("/open"));
    let last_used = |permit: &Permit| permit.pass().expect("a token").last_used();
    assert_eq!(gate.begin(&open, after(0)), Ok(()));
    assert_eq!((last_used(&open), last_used(&closed)), (None, None));
    // Issued ten seconds ago, so it is idle more than fifty seconds from now.
    assert_eq!(gate.begin(&closed, after(51)), Err(Reason::Idle));
    assert_eq!(gate.begin(&open, after(51)), Ok(()), "an idle token does not close an open route");
    assert_eq!(last_used(&closed), None);
    assert_eq!(gate.begin(&closed, after(50)), Ok(()));
    assert_eq!(last_used(&closed), Some(after(50).monotonic));
}

#[test]
fn what_was_found_in_force_is_judged_again_after_each_change_of_the_revocations() {
    type Change = fn(&Revocations);
    let changes: [(Change, Option<Reason>); 4] = [
        (|_| {}, None),
        (|known| known.apply(std::iter::empty()), None),
        (|known| known.set_not_before(now()), Some(Reason::BeforeState)),
        (
            |known| known.apply([Ends::Subject(SubjectKey::new(ISSUER, "alice"), now())]),
            Some(Reason::SubjectRevoked),
        ),
    ];
    for (index, (change, expected)) in changes.into_iter().enumerate() {
        let gate = gate();
        let token = token(&payload(json!({})));
        let ask = TestRequest::new(&gate, "/x").token(&token);
        let judged = permit(&ask);
        let token = judged.token().expect("a token");
        let revocations = &gate.in_force.revocations;
        assert!(token.is_known_in_force(&revocations.load()), "{index}");
        change(revocations);
        assert_eq!(token.is_known_in_force(&revocations.load()), index == 0, "{index}");
        assert_eq!(ask.reason(), expected, "{index}");
    }
}

#[test]
fn an_event_ends_a_token_from_the_future_by_when_it_was_seen() {
    let moment = |second: i64| Timestamp::from_secs(NOW + second);
    // In seconds from now: the issue by the issuer's clock, and the event. The token is seen now, before or
    // after the event is known, and judged again once its time of issue has come.
    for (issued, event, event_is_known, is_ended) in [
        (20, -1, true, false),
        (20, -1, false, false),
        (20, 0, true, false),
        (20, 0, false, true),
        (20, 1, false, true),
        (20, 19, false, true),
        (20, 20, false, true),
        (0, -1, true, false),
        (0, -1, false, false),
        (0, 0, true, true),
        (0, 0, false, true),
        (-10, -11, true, false),
        (-10, -10, true, true),
        (-10, -10, false, true),
    ] {
        let gate = gate();
        let token = token(&payload(json!({"iat": moment(issued).as_secs()})));
        let publish = || {
            let alice = SubjectKey::new(ISSUER, "alice");
            gate.in_force.revocations.apply([Ends::Subject(alice, moment(event))]);
        };
        let is_allowed = |second| {
            let ask = TestRequest { at: moment(second), ..TestRequest::new(&gate, "/x").token(&token) };
            matches!(ask.decide().verdict, Verdict::Allow(_))
        };
        if event_is_known {
            publish();
        }
        let row = (issued, event, event_is_known);
        assert_eq!(is_allowed(0), !(event_is_known && is_ended), "{row:?}: at first sight");
        if !event_is_known {
            publish();
        }
        assert_eq!(is_allowed(25), !is_ended, "{row:?}");
    }
}

#[test]
fn an_enforcer_forgets_what_is_too_much_and_shows_its_settings() {
    let bearer = BearerSettings { websocket_protocol: Some(HeaderValue::from_static("bearer")) };
    let settings = Settings {
        routes: vec![route("/{*rest}")],
        identity: identity(),
        bearer: bearer.clone(),
        dpop: Default::default(),
        proofs: 10,
    };
    let metrics = Metrics::new().expect("instruments");
    let gate = Enforcer::new(settings, issuers(), InForce::unlimited(), &metrics).expect("sound routes");
    assert_eq!(gate.bearer(), &bearer);
    permit(&TestRequest::new(&gate, "/x").token(&token(&payload(json!({})))));
    gate.sweep(Now::at_millis(0).monotonic);
    // Counted only by the sweep.
    assert!(format!("{:?}", gate.verifier).contains("Proofs { proofs: 1, .. }"));
}

#[test]
fn a_gate_that_shares_nothing_asks_nobody_whether_a_token_is_idle() {
    let gate = gate();
    let token = token(&payload(json!({})));
    for (second, expected) in [(50, None), (51, Some(Reason::Idle))] {
        let at = now().plus(Duration::from_secs(second));
        let explained = TestRequest { at, ..TestRequest::new(&gate, "/x").token(&token) }.explain();
        let explained = explained.expect("an explanation");
        assert_eq!((explained.reason, explained.ask), (expected, None), "{second}");
    }
}
