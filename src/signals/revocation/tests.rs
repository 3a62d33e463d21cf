//! Who may revoke, whom a request names, and how requests that name nobody are rejected.

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
const SENDER: &str = "https://org.example.com";
const URL: &str = "https://gate.example.com/signals/global-token-revocation/org";
const NOW: i64 = 1_800_000_000;

fn sender() -> RevocationSender {
    let transmitter = settings();
    let keys = keys::Settings { algorithms: vec![HS256], ..transmitter.keys };
    let set = KeySet::of_secret(SECRET, &[HS256]).unwrap();
    let settings = Settings {
        name: "org".to_owned(),
        issuer: SENDER.to_owned(),
        url: URL.to_owned(),
        keys: keys.clone(),
        subject_issuer: SubjectIssuer { has_email: true, ..transmitter.subject_issuer },
    };
    RevocationSender::new(settings, KeyStore::fixed(keys, set, Metrics::new().unwrap()))
}

/// The result of authorizing a token whose claims are overridden by `changes`.
fn authorize(typ: &str, changes: &Value) -> Result<Authorized, TokenFault> {
    let mut claims = json!({"iss": SENDER, "aud": URL, "jti": "id-1", "iat": NOW - 10, "exp": NOW + 60});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let head = json!({"alg": "HS256", "typ": typ}).to_string();
    let token =
        compact(&Signer::secret("HS256", SECRET), "HS256", head.as_bytes(), claims.to_string().as_bytes());
    sender().authorize(token.as_bytes(), KeysAsked::Keys, Timestamp::from_secs(NOW))
}

fn read(body: &Value, changes: &Value) -> Result<Vec<Event>, Unrevoked> {
    let authorized = authorize(TYPES[0], changes).unwrap();
    sender().read(body.to_string().as_bytes(), &authorized, Timestamp::from_secs(NOW))
}

#[test]
fn only_a_token_of_the_provider_for_this_url_is_accepted() {
    for (typ, changes, is_good) in [
        ("global-token-revocation+jwt", json!({}), true),
        ("Application/Global-Token-Revocation+JWT", json!({}), true),
        ("JWT", json!({}), false),
        (TYPES[0], json!({"iss": ISSUER}), false),
        (TYPES[0], json!({"aud": "https://gate.example.com"}), false),
        // The leeway is five minutes.
        (TYPES[0], json!({"exp": NOW - 299}), true),
        (TYPES[0], json!({"exp": NOW - 300}), false),
    ] {
        assert_eq!(authorize(typ, &changes).is_ok(), is_good, "{typ} {changes}");
    }
}

#[test]
fn the_tokens_of_the_user_end_that_a_request_names() {
    let by_subject = (EventKind::SubjectRevoked, SubjectKind::Subject, "ada");
    let by_email = (EventKind::SubjectRevoked, SubjectKind::Email, "ada@a.test");
    let email = json!({"format": "email", "email": "ada@a.test"});
    for (body, expected) in [
        (json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "ada"}}), by_subject),
        (json!({"sub_id": {"format": "opaque", "id": "ada"}}), by_subject),
        (json!({"sub_id": email.clone()}), by_email),
        (json!({"subject": email.clone(), "more": true}), by_email),
    ] {
        let events = read(&body, &json!({})).unwrap();
        let found =
            events.iter().map(|event| (event.kind, event.subject_kind, event.subject.as_deref().unwrap()));
        assert_eq!(found.collect::<Vec<_>>(), [expected], "{body}");
        assert_eq!((&*events[0].issuer, events[0].at), (ISSUER, Timestamp::from_secs(NOW - 10)), "{body}");
    }
    let origin = |changes| read(&json!({"sub_id": email.clone()}), &changes).unwrap()[0].origin;
    assert!(origin(json!({})).is_some());
    assert_eq!(origin(json!({})), origin(json!({})));
    assert_ne!(origin(json!({})), origin(json!({"jti": "id-2"})));
    let at = |issued| read(&json!({"sub_id": email.clone()}), &json!({"iat": issued})).unwrap()[0].at;
    for (issued, expected) in [(NOW - 1, NOW - 1), (NOW, NOW), (NOW + 300, NOW)] {
        assert_eq!(at(issued), Timestamp::from_secs(expected), "{issued}");
    }
}

#[test]
fn a_request_that_names_no_user_says_why_nothing_ends() {
    let email = json!({"format": "email", "email": "ada@a.test"});
    for (body, expected) in [
        (json!([]), Unrevoked::Malformed("the body must be a JSON object without repeated members")),
        (json!({}), Unrevoked::Malformed("`sub_id` is missing")),
        (
            json!({"sub_id": email.clone(), "subject": email}),
            Unrevoked::Malformed("`sub_id` and `subject` cannot be combined"),
        ),
        (
            json!({"sub_id": {"format": "iss_sub", "iss": "https://other.example.com/", "sub": "ada"}}),
            Unrevoked::Forbidden("the subject belongs to another issuer"),
        ),
        (
            json!({"sub_id": {"format": "did", "url": "did:example:1"}}),
            Unrevoked::Nobody("the format of the subject is not supported"),
        ),
        (
            json!({"sub_id": {"format": "jwt_id", "iss": ISSUER, "jti": "j"}}),
            Unrevoked::Unprocessable("the subject is a session or a token, not a user"),
        ),
    ] {
        assert_eq!(read(&body, &json!({})), Err(expected), "{body}");
    }
    assert!(matches!(read(&json!({"sub_id": 7}), &json!({})), Err(Unrevoked::Malformed(_))));
    let authorized = authorize(TYPES[0], &json!({})).unwrap();
    let twice = br#"{"sub_id":{"format":"opaque","id":"a"},"sub_id":{"format":"opaque","id":"b"}}"#;
    let ambiguous = sender().read(twice, &authorized, Timestamp::from_secs(NOW));
    assert!(matches!(ambiguous, Err(Unrevoked::Malformed(_))), "{ambiguous:?}");
}
