//! How many keys are tried, what is logged and measured of a token, and when proofs are kept.

use std::time::Duration;

use jsonwebtoken::Algorithm::ES256;
use serde_json::json;

use super::*;
use crate::enforce::Settings;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::decide::{Enforcer, InForce, Proof};
use crate::enforce::testing::{
    ISSUER, NOW, Signer, TestRequest, header, identity, issuers, key, payload, route, token, token_of,
};

fn signers(count: usize) -> Vec<Signer> {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let pair = |_| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    (0..count).map(pair).map(Signer::Ecdsa).collect()
}

#[test]
fn eight_keys_of_one_name_are_tried_and_no_more() {
    for (count, expected) in [(1, 1), (7, 7), (8, 8), (9, 8), (12, 8)] {
        let signers = signers(count);
        let keys = KeySet::new(signers.iter().map(|signer| key("k", ES256, signer)).collect());
        for head in [header(json!({"kid": "k"})), json!({"alg": "ES256", "typ": "at+jwt"})] {
            let proved = signers.iter().filter(|signer| {
                let token = token_of(signer, &head.to_string(), &payload(json!({})).to_string());
                let jws = Jws::parse(token.as_bytes()).expect("a token");
                let checked = check_signature(&keys, ES256, &jws);
                let wanted = WantedKey::OtherThan(keys.generation());
                let unproved = Unproved { wanted, reason: Reason::BadSignature };
                assert!(checked.is_ok() || checked == Err(unproved), "{head}");
                checked.is_ok()
            });
            assert_eq!(proved.count(), expected, "{count} keys, {head}");
        }
    }
}

#[test]
fn what_anybody_may_send_is_logged_short_and_visible() {
    let long = "k".repeat(65);
    let wide = "\u{e9}".repeat(70);
    for (text, logged) in [
        ("", String::new()),
        ("key-1", "key-1".to_owned()),
        ("!~", "!~".to_owned()),
        ("a b\tc\nd\u{7f}\0\u{e9}\u{1f511}", "a?b?c?d????".to_owned()),
        (&long[..63], "k".repeat(63)),
        (&long[..64], "k".repeat(64)),
        (&long, "k".repeat(64)),
        (&wide, "?".repeat(64)),
    ] {
        assert_eq!(*loggable(text), *logged, "{text:?}");
    }
}

#[test]
fn the_skew_of_each_fresh_token_is_measured_once() {
    let metrics = Metrics::new().expect("instruments");
    let settings = Settings {
        routes: vec![route("/{*rest}")],
        identity: identity(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: 10,
    };
    let gate = Enforcer::new(settings, issuers(), InForce::unlimited(), &metrics).expect("sound routes");
    let skew = metrics.clock_skew.with_label_values(&[ISSUER]);
    let mut expected = 0.0;
    for (count, (jti, issued)) in (1..).zip([("a", -10_i32), ("b", 20), ("c", 0)]) {
        let token = token(&payload(json!({"jti": jti, "iat": NOW + i64::from(issued)})));
        let ask = TestRequest::new(&gate, "/x").token(&token);
        assert_eq!((ask.decide().proof, ask.decide().proof), (Proof::Fresh, Proof::Cached));
        expected -= f64::from(issued);
        assert_eq!(skew.get_sample_count(), count);
        assert!((skew.get_sample_sum() - expected).abs() < 0.001, "{jti}: {}", skew.get_sample_sum());
    }
}

#[test]
fn a_verifier_shows_the_identity_settings_it_was_made_with() {
    let metrics = Metrics::new().expect("instruments");
    let limits = crate::sessions::Settings {
        idle_timeouts: None.into(),
        max_tracked: 10,
        leeway: Duration::ZERO,
        saved: false,
    };
    let sessions = Sessions::new(limits);
    for settings in [identity(), IdentitySettings::default()] {
        let verifier = TokenVerifier::new(
            issuers(),
            settings.clone(),
            ConditionTable::default(),
            10,
            &sessions,
            &metrics,
        );
        assert_eq!(verifier.identity(), &settings);
        assert_eq!(verifier.issuers().len(), 3);
    }
}
