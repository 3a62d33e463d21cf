//! Which tokens a logout token ends, from when on, and which logout tokens are rejected.

use jsonwebtoken::Algorithm::HS256;
use serde_json::json;
use testkit::tokens::{Signer, compact};

use super::*;
use crate::keys::set::KeySet;
use crate::metrics::Metrics;
use crate::signals::ssf::tests::settings;
use crate::state::record::SubjectKind;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const ISSUER: &str = "https://idp.example.com/";
const NOW: i64 = 1_800_000_000;

fn sender(has_aliases: bool) -> LogoutSender {
    let transmitter = settings();
    let issuer = SubjectIssuer { has_aliases, ..transmitter.subject_issuer };
    let settings = Settings {
        name: "idp".to_owned(),
        issuer,
        algorithms: vec![HS256],
        audiences: vec!["app".to_owned()],
    };
    let set = KeySet::of_secret(SECRET, &[HS256]).unwrap();
    LogoutSender::new(settings, KeyStore::fixed(transmitter.keys, set, Metrics::new().unwrap()))
}

/// A token for `session` and `subject`; `changes` replaces claims, and removes those that are `null`.
fn token(typ: &str, changes: &Value) -> Vec<u8> {
    let mut claims = json!({
        "iss": ISSUER, "aud": "app", "jti": "id-1", "iat": NOW - 10, "exp": NOW + 60, "events": {LOGOUT: {}},
        "sid": "session", "sub": "subject",
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let head = json!({"alg": "HS256", "typ": typ}).to_string();
    compact(&Signer::secret("HS256", SECRET), "HS256", head.as_bytes(), claims.to_string().as_bytes()).into()
}

fn read(sender: &LogoutSender, token: &[u8]) -> Result<Vec<Event>, TokenFault> {
    sender.read(token, KeysAsked::Keys, Timestamp::from_secs(NOW))
}

#[test]
fn the_session_ends_that_a_token_names_and_without_one_its_subject() {
    let subject = |kind| (None, Some("subject"), kind);
    for (changes, has_aliases, expected) in [
        (json!({}), true, vec![(Some("session"), None, SubjectKind::Subject)]),
        (json!({"sub": null}), true, vec![(Some("session"), None, SubjectKind::Subject)]),
        (json!({"sid": null}), false, vec![subject(SubjectKind::Subject)]),
        (json!({"sid": null}), true, vec![subject(SubjectKind::Subject), subject(SubjectKind::Alias)]),
    ] {
        for typ in ["logout+jwt", "Application/Logout+JWT", "JWT"] {
            let events = read(&sender(has_aliases), &token(typ, &changes)).unwrap();
            let found = events
                .iter()
                .map(|event| (event.session.as_deref(), event.subject.as_deref(), event.subject_kind));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{typ} {changes}");
            for event in &events {
                assert_eq!((&*event.issuer, event.at), (ISSUER, Timestamp::from_secs(NOW - 10)), "{changes}");
                let kind = if event.session.is_some() {
                    EventKind::SessionRevoked
                } else {
                    EventKind::SubjectRevoked
                };
                assert_eq!(event.kind, kind, "{changes}");
            }
        }
    }
}

#[test]
fn the_same_token_gives_the_same_events_and_one_from_ahead_counts_as_of_now() {
    let sender = sender(false);
    let origin = |changes| read(&sender, &token("JWT", &changes)).unwrap()[0].origin;
    assert_eq!(origin(json!({})), origin(json!({})));
    assert!(origin(json!({})).is_some());
    for other in [json!({"jti": "id-2"}), json!({"iat": NOW - 11})] {
        assert_ne!(origin(json!({})), origin(other.clone()), "{other}");
    }
    for (issued, at) in [(NOW - 1, NOW - 1), (NOW, NOW), (NOW + 1, NOW), (NOW + 300, NOW)] {
        let events = read(&sender, &token("JWT", &json!({"iat": issued}))).unwrap();
        assert_eq!(events[0].at, Timestamp::from_secs(at), "{issued}");
    }
}

#[test]
fn what_is_no_logout_token_ends_nothing() {
    let text = "`sid` and `sub` must be non-empty strings";
    for (typ, changes, fault) in [
        ("secevent+jwt", json!({}), "`typ` is not accepted here"),
        ("", json!({}), "`typ` is not accepted here"),
        (
            "JWT",
            json!({"iss": "https://other.example.com/"}),
            "`iss` is not the issuer configured for this sender",
        ),
        ("JWT", json!({"aud": "other"}), "`aud` has no audience configured for this sender"),
        ("JWT", json!({"jti": ""}), "`jti` must be a non-empty string"),
        ("JWT", json!({"exp": NOW - 31}), "the token has expired"),
        ("JWT", json!({"nonce": "n"}), "`nonce` is not allowed"),
        ("JWT", json!({"nonce": 0}), "`nonce` is not allowed"),
        ("JWT", json!({"events": null}), "`events` must be an object"),
        ("JWT", json!({"events": [LOGOUT]}), "`events` must be an object"),
        ("JWT", json!({"events": {}}), "`events` has no logout event"),
        ("JWT", json!({"events": {"other": {}}}), "`events` has no logout event"),
        ("JWT", json!({"events": {LOGOUT: true}}), "the logout event must be an object"),
        ("JWT", json!({"sid": null, "sub": null}), "both `sid` and `sub` are missing"),
        ("JWT", json!({"sid": ""}), text),
        ("JWT", json!({"sid": 7}), text),
        ("JWT", json!({"sub": ""}), text),
        ("JWT", json!({"sub": ["subject"]}), text),
    ] {
        let read = read(&sender(true), &token(typ, &changes));
        assert_eq!(read, Err(TokenFault::Refused(fault)), "{typ} {changes}");
    }
    let mut forged = token("JWT", &json!({}));
    let last = forged.len() - 10;
    forged[last] ^= 1;
    assert!(matches!(read(&sender(true), &forged), Err(TokenFault::Refused(_))));
}

#[test]
fn a_token_is_a_logout_token_by_its_event() {
    for (claims, expected) in [
        (json!({"events": {LOGOUT: {}}}), true),
        (json!({"events": {LOGOUT: 7, "other": {}}, "nonce": "n"}), true),
        (json!({"events": {"other": {}}}), false),
        (json!({"events": [LOGOUT]}), false),
        (json!({"events": LOGOUT}), false),
        (json!({}), false),
    ] {
        assert_eq!(is_logout_token(claims.as_object().unwrap()), expected, "{claims}");
    }
}
