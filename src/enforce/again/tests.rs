//! Lasting requests are judged again by the configuration, the keys and the token that allowed them.

use std::time::Duration;

use jsonwebtoken::Algorithm::ES256;
use serde_json::json;

use super::*;
use crate::enforce::decide::{InForce, TrustedIssuer, Verdict};
use crate::enforce::policy::RouteSettings;
use crate::enforce::testing::{
    ISSUER, SIGNERS, TestRequest, b64, enforcer, enforcer_with, key, key_settings, now, payload, route,
    rules, token,
};
use crate::keys::set::KeySet;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::sessions::{self, Sessions};
use crate::time::Timestamp;

/// An issuer whose keys a test may replace.
fn issuer() -> (Arc<KeyStore>, TrustedIssuer) {
    let set = KeySet::new(vec![key("es", ES256, &SIGNERS.es256)]);
    let keys = KeyStore::fixed(key_settings(ISSUER, &[ES256]), set, Metrics::new().expect("instruments"));
    (Arc::clone(&keys), TrustedIssuer { rules: rules(ISSUER, &[ES256]), keys })
}

fn permit(ask: &TestRequest<'_>) -> Permit {
    let Verdict::Allow(permit) = ask.decide().verdict else { panic!("not allowed") };
    permit
}

fn at(second: u64) -> Timestamp {
    now().plus(Duration::from_secs(second))
}

fn both(at: Timestamp) -> Now {
    Now::at_millis(at.as_millis())
}

#[test]
fn grounds_stand_while_the_enforcer_and_its_keys_are_the_same() {
    let (keys, issuer) = issuer();
    let routes = || vec![RouteSettings { anonymous: true, ..route("/open") }, route("/{*rest}")];
    let gate = Arc::new(enforcer(vec![issuer.clone()], routes()));
    let other = Arc::new(enforcer(vec![issuer], routes()));
    let token = token(&payload(json!({})));
    let proved = Grounds::new(&gate, &permit(&TestRequest::new(&gate, "/x").token(&token)));
    let anonymous = Grounds::new(&gate, &permit(&TestRequest::new(&gate, "/open")));
    assert_eq!(proved.pass().and_then(|pass| pass.token.jti.as_deref()), Some("token-1"));
    assert!(anonymous.pass().is_none());
    assert!(proved.stand(&gate) && anonymous.stand(&gate));
    assert!(!proved.stand(&other) && !anonymous.stand(&other), "a reload");
    keys.install(KeySet::new(vec![key("next", ES256, &SIGNERS.es256)]));
    assert!(!proved.stand(&gate), "other keys");
    assert!(anonymous.stand(&gate), "no key proved it");
}

#[test]
fn a_token_that_lasts_is_judged_by_time_and_certificate() {
    let gate = Arc::new(enforcer(vec![issuer().1], vec![route("/{*rest}")]));
    let bound = token(&payload(json!({"cnf": {"x5t#S256": b64(&[7; 32])}})));
    let ask = TestRequest { certificate: Some([7; 32]), ..TestRequest::new(&gate, "/x").token(&bound) };
    let grounds = Grounds::new(&gate, &permit(&ask));
    // `exp` is ten minutes from now, and `leeway` is 30 s.
    for (certificate, second, expected) in [
        (Some([7; 32]), 0, Ok(())),
        (Some([7; 32]), 629, Ok(())),
        (Some([7; 32]), 630, Err(Reason::Expired)),
        (Some([8; 32]), 0, Err(Reason::CertificateMismatch)),
        (None, 0, Err(Reason::CertificateMismatch)),
    ] {
        let judged = grounds.judge(certificate.as_ref(), both(at(second)));
        assert_eq!(judged, expected, "{certificate:?} after {second} seconds");
    }
}

#[test]
fn bytes_of_a_stream_keep_its_token_in_use() {
    let settings = sessions::Settings {
        idle_timeouts: Some(Duration::from_secs(60)).into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: false,
    };
    let in_force = InForce { sessions: Arc::new(Sessions::new(settings)), ..InForce::unlimited() };
    let gate = Arc::new(enforcer_with(vec![issuer().1], vec![route("/{*rest}")], in_force));
    let token = token(&payload(json!({})));
    let permit = permit(&TestRequest::new(&gate, "/x").token(&token));
    let grounds = Grounds::new(&gate, &permit);
    let last_used = || grounds.pass().expect("a token").last_used();
    assert_eq!(last_used(), None, "before the first use");
    gate.begin(&permit, both(at(0))).expect("in use");
    assert_eq!(last_used(), Some(both(at(0)).monotonic));
    grounds.keep_alive(both(at(40)));
    assert_eq!(last_used(), Some(both(at(40)).monotonic));
    assert_eq!(grounds.judge(None, both(at(100))), Ok(()));
    assert_eq!(grounds.judge(None, both(at(101))), Err(Reason::Idle));
    grounds.keep_alive(both(at(101)));
    assert_eq!(last_used(), Some(both(at(40)).monotonic), "too late");
}
