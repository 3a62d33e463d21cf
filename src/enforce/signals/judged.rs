//! The effect of stale signals on requests, lasting requests and `explain`; which subjects are recorded.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{IssuerSignals, SeenSubjects, SignalClock};
use crate::enforce::again::Grounds;
use crate::enforce::decide::{Enforcer, Proof, Verdict};
use crate::enforce::denial::Reason;
use crate::enforce::testing::{TestRequest, enforcer, issuers, now, payload, route, token};
use crate::time::Now;

/// An enforcer that accepts tokens of its first issuer only while this transmitter is heard from.
fn hearing(required: &Arc<SignalClock>, subjects: Vec<SeenSubjects>) -> Enforcer {
    let signals = IssuerSignals { required: vec![Arc::clone(required)], subjects };
    enforcer(issuers(), vec![route("/{*rest}")]).with_signals(vec![signals])
}

/// This many seconds after the tokens were issued.
fn after(seconds: u64) -> Now {
    Now::at_millis(now().plus(Duration::from_secs(seconds)).as_millis())
}

#[test]
fn tokens_are_refused_while_a_transmitter_that_must_be_heard_is_not() {
    let clock = Arc::new(SignalClock::new("okta", after(0).monotonic, Duration::from_secs(60)));
    let enforcer = Arc::new(hearing(&clock, Vec::new()));
    let token = token(&payload(json!({})));
    let ask =
        |seconds| TestRequest { at: after(seconds).wall, ..TestRequest::new(&enforcer, "/a").token(&token) };
    assert_eq!(ask(60).reason(), None);
    let Verdict::Allow(permit) = ask(60).decide().verdict else { panic!("not allowed") };
    let grounds = Grounds::new(&enforcer, &permit);
    assert_eq!(grounds.judge(None, after(60)), Ok(()));
    assert_eq!(grounds.judge(None, after(61)), Err(Reason::SignalsStale), "a request that lasts");
    assert_eq!(ask(61).reason(), Some(Reason::SignalsStale));
    assert!(grounds.stand(&enforcer), "judging again is enough");
    let detail = |seconds| ask(seconds).explain().expect("an explanation").detail("revocation").to_owned();
    assert_eq!(
        detail(61),
        "the heartbeat of the event transmitter \"okta\" is overdue: not confirmed for 1m1s"
    );
    clock.suspend();
    assert_eq!(ask(1).reason(), Some(Reason::SignalsStale));
    assert_eq!(detail(1), "the event transmitter \"okta\" has stopped sending signals");
    clock.confirm(after(61).monotonic, Duration::from_secs(60));
    assert_eq!(ask(121).reason(), None);
}

#[test]
fn an_issuer_without_such_a_transmitter_is_judged_as_ever() {
    let clock = Arc::new(SignalClock::new("okta", after(0).monotonic, Duration::ZERO));
    clock.suspend();
    let other = IssuerSignals { required: vec![clock], subjects: Vec::new() };
    let enforcer = enforcer(issuers(), vec![route("/{*rest}")]);
    let enforcer = enforcer.with_signals(vec![IssuerSignals::default(), other]);
    let ask = TestRequest::new(&enforcer, "/a").token(&token(&payload(json!({}))));
    assert_eq!(ask.reason(), None);
}

#[test]
fn the_subject_of_a_token_is_noted_once_its_signature_was_found_true() {
    let (seen, mut arriving) = SeenSubjects::channel(8);
    let clock = Arc::new(SignalClock::new("okta", after(0).monotonic, Duration::from_secs(3600)));
    let enforcer = hearing(&clock, vec![seen]);
    let good = token(&payload(json!({"sub": "alice"})));
    let other = token(&payload(json!({"sub": "bob"})));
    let (claims, signature) =
        (good.rsplit_once('.').expect("a JWS").0, other.rsplit_once('.').expect("a JWS").1);
    let forged = format!("{claims}.{signature}");
    for (token, proof, noted) in
        [(&forged, Proof::None, None), (&good, Proof::Fresh, Some("alice")), (&good, Proof::Cached, None)]
    {
        assert_eq!(TestRequest::new(&enforcer, "/a").token(token).decide().proof, proof);
        assert_eq!(arriving.try_recv().ok().as_deref(), noted, "{proof:?}");
    }
}
