//! A security event token, a logout token or a global revocation that is accepted brings only events of the issuer it may speak of, and of the past; said again it
//! brings the same ones; and with another signature it brings none.
//!
//! The input is a header and claims, each on a line, of which a token is made; or a body as it is. The claims are also the
//! body of a revocation.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;

use crate::events::EventIssuer;
use crate::keys::set::KeySet;
use crate::keys::store::KeyStore;
use crate::keys::{self, KeySource};
use crate::metrics::Metrics;
use crate::signals::logout::{self, LogoutSender};
use crate::signals::revocation::{self, RevocationSender};
use crate::signals::ssf::{KeysAsked, Settings, Transmission, Transmitter, Unaccepted};
use crate::signals::subject::SubjectIssuer;
use crate::state::record::Event;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);
const ISSUER: &str = "https://idp.example.com/";
const SECRET: &[u8] = b"a secret that is long enough for it";
const TYPES: [&str; 2] = ["application/secevent+jwt", "application/json"];

/// A strict and a tolerant one.
static TRANSMITTERS: LazyLock<[Transmitter; 2]> = LazyLock::new(|| [false, true].map(transmitter));

static LOGOUT: LazyLock<LogoutSender> = LazyLock::new(|| {
    let (keys, store) = fixed();
    let settings = logout::Settings {
        name: "t".to_owned(),
        issuer: subject_issuer(),
        algorithms: keys.algorithms,
        audiences: vec!["web".to_owned()],
    };
    LogoutSender::new(settings, store)
});

static REVOCATION: LazyLock<RevocationSender> = LazyLock::new(|| {
    let (keys, store) = fixed();
    let settings = revocation::Settings {
        name: "t".to_owned(),
        issuer: ISSUER.to_owned(),
        url: "https://gate.example.com".to_owned(),
        keys,
        subject_issuer: subject_issuer(),
    };
    RevocationSender::new(settings, store)
});

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let (header, claims) =
        input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len()));
    let claims = claims.get(1..).unwrap_or_default();
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    let token = |signature: &[u8]| format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let (good, forged) = (token(signature.as_ref()), token(&[0; 32]));
    for transmitter in &*TRANSMITTERS {
        for content_type in TYPES {
            let receive = |body: &[u8]| transmitter.receive(body, Some(content_type), KeysAsked::Keys, NOW);
            assert!(receive(input).is_err(), "accepted without a signature: {}", input.escape_ascii());
            assert!(receive(forged.as_bytes()).is_err(), "accepted with a forged signature");
            let envelope = format!("{{\"payload\":\"{good}\"}}");
            let body = if content_type == TYPES[1] { &envelope } else { &good };
            let received = receive(body.as_bytes());
            assert_eq!(receive(body.as_bytes()), received);
            judge(&received);
        }
    }
    let log_out = |token: &[u8]| LOGOUT.read(token, KeysAsked::Keys, NOW);
    assert!(log_out(input).is_err() && log_out(forged.as_bytes()).is_err(), "a logout without a signature");
    let logged_out = log_out(good.as_bytes());
    assert_eq!(log_out(good.as_bytes()), logged_out);
    judge_events(logged_out.as_deref().unwrap_or_default());
    let authorize = |token: &[u8]| REVOCATION.authorize(token, KeysAsked::Keys, NOW);
    assert!(authorize(input).is_err() && authorize(forged.as_bytes()).is_err(), "a revocation without one");
    if let Ok(authorized) = authorize(good.as_bytes()) {
        assert!(logged_out.is_err(), "no token is of two kinds");
        let revoked = REVOCATION.read(claims, &authorized, NOW);
        assert_eq!(REVOCATION.read(claims, &authorized, NOW), revoked);
        judge_events(revoked.as_deref().unwrap_or_default());
    }
}

fn judge_events(events: &[Event]) {
    for event in events {
        assert_eq!(&*event.issuer, ISSUER);
        assert!(event.at <= NOW && event.expires_at > NOW && event.origin.is_some());
        assert!(event.subject.is_some() || event.session.is_some());
    }
}

fn judge(received: &Result<crate::signals::ssf::Accepted, Unaccepted>) {
    match received {
        Ok(accepted) => {
            assert!(!accepted.events.is_empty() || !accepted.passed_over.is_empty());
            for event in &accepted.events {
                assert_eq!(&*event.issuer, "https://idp.example.com/");
                assert!(event.at <= NOW && event.expires_at > NOW && event.origin.is_some());
                let is_token = event.subject.is_none() && event.session.is_none();
                assert_eq!(is_token, event.jti.is_some());
            }
        }
        Err(Unaccepted::Refused(refusal)) => assert!(!refusal.description.is_empty()),
        Err(other) => unreachable!("the keys are there: {other:?}"),
    }
}

/// Keys of a sender that signs with the secret.
fn fixed() -> (keys::Settings, Arc<KeyStore>) {
    let keys = keys::Settings {
        issuer: "event_transmitters/t".to_owned(),
        source: KeySource::Secret(SECRET.to_vec()),
        algorithms: vec![Algorithm::HS256],
        ..keys::Settings::default()
    };
    let (Ok(set), Ok(metrics)) = (KeySet::of_secret(SECRET, &keys.algorithms), Metrics::new()) else {
        unreachable!("the secret is long enough")
    };
    (keys.clone(), KeyStore::fixed(keys, set, metrics))
}

fn subject_issuer() -> SubjectIssuer {
    SubjectIssuer {
        issuer: EventIssuer {
            issuer: ISSUER.into(),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(86_400),
        },
        has_email: false,
        has_aliases: false,
    }
}

fn transmitter(tolerant: bool) -> Transmitter {
    let (keys, store) = fixed();
    let settings = Settings {
        name: "t".to_owned(),
        issuer: "https://idp.example.com/".to_owned(),
        audience: "https://gate.example.com".to_owned(),
        keys,
        subject_issuer: subject_issuer(),
        role_claims: vec!["https://example.com/rights".to_owned()],
        critical_members: vec!["device".to_owned()],
        tolerant,
        authorization: None,
        transmission: Transmission::default(),
    };
    Transmitter::new(settings, store)
}
