//! The endpoints for signals without sockets: the exact response of each to signals that are right, wrong, unauthorized
//! or too large, and what is in force afterwards.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail as the test does")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, Method};
use jsonwebtoken::Algorithm;
use portcullis::events::{EventIssuer, EventLog};
use portcullis::keys::set::KeySet;
use portcullis::keys::store::KeyStore;
use portcullis::keys::{self, jwks};
use portcullis::metrics::Metrics;
use portcullis::signals::intake::{Intake, Senders, Settings};
use portcullis::signals::logout::{self, LogoutSender};
use portcullis::signals::revocation::{self, RevocationSender};
use portcullis::signals::ssf::{self, Receiver, Transmission, Transmitter};
use portcullis::signals::subject::SubjectIssuer;
use portcullis::signals::{Concealed, SignalRequest};
use portcullis::state::Store;
use portcullis::time::Now;
use serde_json::{Value, json};
use testkit::tokens::{Issuer, Signer, Token, unique};

use crate::scim;
use crate::signal_log::Published;

mod endpoints;

const AUDIENCE: &str = "https://gate.example.com";
const ORGANISATION: &str = "https://org.okta.example";
const REVOCATION_URL: &str = "https://gate.example.com/signals/global-token-revocation/okta";
const REVOCATION: &str = "global-token-revocation/okta";
const ALICE: &str = r#"{"sub_id":{"format":"opaque","id":"alice"}}"#;
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CHALLENGE: &str = r#"Bearer realm="portcullis-signals""#;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");
const SET: (&str, &str) = ("content-type", "application/secevent+jwt");

/// Senders of each kind: `ssf/t`, `ssf/secret`, which wants a header, `logout/op`, `global-token-revocation/okta` and
/// `scim/idp`.
struct Bed {
    intake: Intake,
    log: Arc<EventLog>,
    metrics: Metrics,
    issuer: Issuer,
    organisation: Issuer,
}

/// Keys that are there; without an issuer, none are there yet.
fn key_store(issuer: Option<&Issuer>, sender: &str) -> Arc<KeyStore> {
    let settings = keys::Settings {
        issuer: sender.to_owned(),
        algorithms: vec![Algorithm::ES256],
        ..Default::default()
    };
    let metrics = Metrics::new().unwrap();
    let Some(issuer) = issuer else { return KeyStore::new(settings, metrics) };
    let document = issuer.jwks().to_string();
    let set = KeySet::new(jwks::parse(document.as_bytes(), &settings.algorithms).unwrap().keys);
    KeyStore::fixed(settings, set, metrics)
}

fn subjects(issuer: &Issuer) -> SubjectIssuer {
    SubjectIssuer {
        issuer: EventIssuer {
            issuer: issuer.name.as_str().into(),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(3600),
        },
        has_email: false,
        has_aliases: false,
    }
}

fn transmitter(
    name: &str,
    issuer: &Issuer,
    keys: Arc<KeyStore>,
    authorization: Option<&str>,
) -> Arc<Transmitter> {
    let settings = ssf::Settings {
        name: name.to_owned(),
        issuer: issuer.name.clone(),
        audience: AUDIENCE.to_owned(),
        keys: keys::Settings { algorithms: vec![Algorithm::ES256], ..Default::default() },
        subject_issuer: subjects(issuer),
        role_claims: Vec::new(),
        critical_members: Vec::new(),
        tolerant: false,
        authorization: authorization.map(|value| Concealed::new(value.to_owned())),
        transmission: Transmission::default(),
    };
    Arc::new(Transmitter::new(settings, keys))
}

impl Bed {
    async fn start() -> Self {
        Self::with(true, 100_000).await
    }

    /// Starts it with so many requests per second of a sender, and with the keys of the senders or without.
    async fn with(has_keys: bool, requests: u32) -> Self {
        let (issuer, organisation) = (Issuer::new(), Issuer::named(ORGANISATION));
        let metrics = Metrics::new().unwrap();
        let store = Store::in_memory(Now::read()).unwrap();
        let Published { log, signals, .. } = Published::over(store.clone(), &metrics).await;
        let of = |issuer| key_store(Some(issuer).filter(|_| has_keys), "sender");
        let logout = logout::Settings {
            name: "op".to_owned(),
            issuer: subjects(&issuer),
            algorithms: vec![Algorithm::ES256],
            audiences: vec!["my-client".to_owned()],
        };
        let revocation = revocation::Settings {
            name: "okta".to_owned(),
            issuer: ORGANISATION.to_owned(),
            url: REVOCATION_URL.to_owned(),
            keys: keys::Settings { algorithms: vec![Algorithm::ES256], ..Default::default() },
            subject_issuer: subjects(&issuer),
        };
        let transmitters = vec![
            transmitter("t", &issuer, of(&issuer), None),
            transmitter("secret", &issuer, of(&issuer), Some("Bearer of-the-stream")),
        ];
        let senders = Senders {
            receiver: Arc::new(Receiver::new(transmitters, Arc::clone(&signals))),
            logout: vec![LogoutSender::new(logout, of(&issuer))],
            revocation: vec![RevocationSender::new(revocation, of(&organisation))],
            scim: vec![scim::provider(store, Arc::clone(&signals), None)],
            log: signals,
        };
        let settings = Settings {
            listen: None,
            tls: None,
            path: "/signals".to_owned(),
            public_url: None,
            requests_per_sender: NonZeroU32::new(requests).unwrap(),
        };
        Self { intake: Intake::new(settings, senders), log, metrics, issuer, organisation }
    }

    /// Posts to an endpoint: status, header fields and body of the response. Without a body, it was too large to be read.
    async fn post(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&str>,
    ) -> (u16, HeaderMap, String) {
        self.send(&Method::POST, path, fields, body).await
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&str>,
    ) -> (u16, HeaderMap, String) {
        let endpoint = self.intake.endpoint(&format!("/signals/{path}")).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let request = SignalRequest {
            method,
            path: endpoint.path(),
            query: None,
            headers: &headers,
            body: body.map(str::as_bytes),
            address: "192.0.2.1".parse().unwrap(),
        };
        let (head, body) = self.intake.answer(&endpoint, &request).await.into_parts();
        assert_eq!(head.headers["cache-control"], "no-store", "{path}");
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Posts, and returns the status and the document of the response.
    async fn said(&self, path: &str, fields: &[(&str, &str)], body: Option<&str>) -> (u16, Value) {
        let (status, fields, text) = self.post(path, fields, body).await;
        assert_eq!(fields["content-type"], "application/json", "{path}");
        (status, serde_json::from_str(&text).unwrap())
    }

    fn logout_token(&self) -> Token<'_> {
        let token = bare(&self.issuer).head("typ", "logout+jwt").claim("aud", "my-client");
        token.claim("exp", testkit::now() + 120).claim("sid", "s1").claim("events", json!({LOGOUT: {}}))
    }

    fn security_event(&self) -> Token<'_> {
        let subject = json!({"format": "iss_sub", "iss": self.issuer.name, "sub": "alice"});
        let token = bare(&self.issuer).head("typ", "secevent+jwt").claim("aud", AUDIENCE);
        token.claim("sub_id", subject).claim("events", json!({SESSION_REVOKED: {}}))
    }

    /// A token that authorizes a global revocation.
    fn authorization(&self) -> Token<'_> {
        let token = bare(&self.organisation).head("typ", "global-token-revocation+jwt");
        token.claim("aud", REVOCATION_URL).claim("exp", testkit::now() + 120)
    }

    /// The events so far: source, type, subject and session.
    async fn events(&self) -> Vec<String> {
        let events = self.log.events(0, 100).await.unwrap().items;
        let name = |name: &Option<Box<str>>| name.as_deref().unwrap_or("-").to_owned();
        events
            .iter()
            .map(|stored| {
                let event = &stored.event;
                let (source, kind) = (stored.source.as_str(), event.kind.as_str());
                format!("{source} {kind} {} {}", name(&event.subject), name(&event.session))
            })
            .collect()
    }

    fn refused(&self, source: &str) -> u64 {
        self.metrics.signals.with_label_values(&[source, "none", "no"]).get()
    }
}

/// A token with only the claims that all kinds of tokens share, and without a type.
fn bare(issuer: &Issuer) -> Token<'_> {
    let token = issuer.token().headless("typ").claim("jti", unique());
    ["sub", "exp", "client_id", "scope"].into_iter().fold(token, |token, name| token.without(name))
}

#[tokio::test]
async fn who_logs_out_at_the_provider_loses_the_session() {
    let bed = Bed::start().await;
    let form = |token: &Token<'_>| format!("logout_token={}", token.build());
    let right = form(&bed.logout_token());
    let wrong = (400, json!({"error": "invalid_request"}));
    let stranger = Signer::new("ES256", "key-1");
    let bodies = [
        (&[JSON][..], right.clone()),
        (&[], right.clone()),
        (&[FORM, FORM], right.clone()),
        (&[("content-type", "application/x-www-form-urlencodedx")], right.clone()),
        (&[FORM], String::new()),
        (&[FORM], right.replace("logout_token", "Logout_Token")),
        (&[FORM], format!("{right}&{right}")),
        (&[FORM], format!("{right}&a=%ff")),
        (&[FORM], form(&bed.logout_token().claim("nonce", "n"))),
        (&[FORM], form(&bed.logout_token().without("sid"))),
        (&[FORM], form(&bed.logout_token().signed_by(&stranger))),
    ];
    for (fields, body) in &bodies {
        assert_eq!(bed.said("logout/op", fields, Some(body)).await, wrong, "{fields:?} {body}");
    }
    let large = (413, json!({"error": "invalid_request"}));
    assert_eq!(bed.said("logout/op", &[FORM], None).await, large);
    assert_eq!(bed.refused("logout"), bodies.len() as u64 + 1);
    assert!(bed.events().await.is_empty());
    for kind in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded ; charset=utf-8"] {
        let (status, _, body) = bed.post("logout/op", &[("content-type", kind)], Some(&right)).await;
        assert_eq!((status, body.as_str()), (200, ""), "{kind}");
    }
    assert_eq!(bed.events().await, ["logout session-revoked - s1"], "the same token is the same event");
}

#[tokio::test]
async fn a_global_revocation_needs_exactly_one_bearer_token_that_authorizes_it() {
    let bed = Bed::start().await;
    let right = format!("Bearer {}", bed.authorization().build());
    let why = "the request must have exactly one bearer token";
    for values in [
        vec![],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![right.replace("Bearer", "Basic ")],
        vec![right.replace("Bearer ", "")],
        vec![right.clone(), right.clone()],
    ] {
        let sent = values.iter().map(|value| ("authorization", value.as_str()));
        let sent: Vec<_> = sent.chain([JSON]).collect();
        let (status, fields, text) = bed.post(REVOCATION, &sent, Some(ALICE)).await;
        let expected = json!({"error": "invalid_token", "error_description": why});
        assert_eq!((status, serde_json::from_str(&text).unwrap()), (401, expected), "{sent:?}");
        assert_eq!(fields["www-authenticate"], CHALLENGE, "{sent:?}");
    }
    for token in [bed.authorization().claim("aud", AUDIENCE), bed.authorization().headless("typ")] {
        let value = format!("Bearer {}", token.build());
        let (status, fields, text) =
            bed.post(REVOCATION, &[JSON, ("authorization", value.as_str())], Some(ALICE)).await;
        assert_eq!(status, 401, "{text}");
        assert_eq!(fields["www-authenticate"], format!(r#"{CHALLENGE}, error="invalid_token""#));
        assert!(text.contains(r#""error":"invalid_token""#), "{text}");
    }
    assert_eq!(bed.refused("gtr"), 8);
    assert!(bed.events().await.is_empty());
}

#[tokio::test]
async fn a_global_revocation_ends_the_tokens_of_the_user_that_its_body_names() {
    let bed = Bed::start().await;
    let right = format!("Bearer {}", bed.authorization().build());
    let authorized = ("authorization", right.as_str());
    for (kinds, body, status, error) in [
        (&[FORM][..], Some(ALICE), 400, "invalid_request"),
        (&[], Some(ALICE), 400, "invalid_request"),
        (&[JSON, JSON], Some(ALICE), 400, "invalid_request"),
        (&[JSON], Some("{}"), 400, "invalid_request"),
        (&[JSON], None, 413, "invalid_request"),
        (
            &[JSON],
            Some(r#"{"sub_id":{"format":"iss_sub","iss":"https://x/","sub":"a"}}"#),
            403,
            "access_denied",
        ),
        (&[JSON], Some(r#"{"sub_id":{"format":"did","url":"did:example:1"}}"#), 404, "unknown_subject"),
        (
            &[JSON],
            Some(r#"{"sub_id":{"format":"complex","session":{"format":"opaque","id":"s1"}}}"#),
            422,
            "unprocessable_subject",
        ),
    ] {
        let fields: Vec<_> = kinds.iter().copied().chain([authorized]).collect();
        let (found, said) = bed.said(REVOCATION, &fields, body).await;
        assert_eq!((found, &said["error"]), (status, &json!(error)), "{kinds:?} {body:?}");
        assert!(said["error_description"].is_string(), "{said}");
    }
    assert_eq!(bed.refused("gtr"), 8);
    assert!(bed.events().await.is_empty());
    let lower = right.replace("Bearer", "bearer");
    for value in [right.as_str(), &lower] {
        let (status, _, text) = bed.post(REVOCATION, &[JSON, ("authorization", value)], Some(ALICE)).await;
        assert_eq!((status, text.as_str()), (204, ""));
    }
    let events = bed.events().await;
    assert!(
        events.iter().all(|event| event == "gtr subject-revoked alice -") && !events.is_empty(),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_push_needs_the_agreed_header_and_a_valid_event() {
    let bed = Bed::start().await;
    let token = bed.security_event().build();
    let description = "the Authorization header does not have the configured value";
    for values in [
        &[][..],
        &["Bearer of-the-strea"],
        &["Bearer of-the-streams"],
        &["bearer of-the-stream"],
        &["Bearer of-the-stream", "Bearer of-the-stream"],
    ] {
        let fields: Vec<_> = values.iter().map(|value| ("authorization", *value)).chain([SET]).collect();
        let (status, fields, text) = bed.post("ssf/secret", &fields, Some(&token)).await;
        let expected = json!({"err": "authentication_failed", "description": description});
        assert_eq!((status, serde_json::from_str(&text).unwrap()), (401, expected), "{values:?}");
        assert_eq!(
            (&fields["www-authenticate"], &fields["content-language"]),
            (&CHALLENGE.parse().unwrap(), &"en".parse().unwrap())
        );
    }
    let large = json!({"err": "invalid_request", "description": "the body is too large"});
    assert_eq!(bed.said("ssf/t", &[SET], None).await, (413, large));
    for (token, code) in [
        (bed.security_event().claim("aud", "https://other.example.com"), "invalid_audience"),
        (bed.security_event().claim("iss", "https://other.example.com"), "invalid_issuer"),
    ] {
        let (status, said) = bed.said("ssf/t", &[SET], Some(&token.build())).await;
        assert_eq!((status, &said["err"]), (400, &json!(code)), "{said}");
    }
    assert_eq!(bed.refused("ssf"), 8);
    assert!(bed.events().await.is_empty());
    let agreed = ("authorization", "Bearer of-the-stream");
    for (path, fields) in [("ssf/t", &[SET][..]), ("ssf/t", &[SET, agreed]), ("ssf/secret", &[SET, agreed])] {
        let (status, _, text) = bed.post(path, fields, Some(&token)).await;
        assert_eq!((status, text.as_str()), (202, ""), "{path} {fields:?}");
    }
    assert!(bed.events().await.iter().all(|event| event.starts_with("ssf ")), "{:?}", bed.events().await);
    assert!(!bed.events().await.is_empty());
}

#[tokio::test]
async fn while_the_keys_of_a_sender_are_missing_it_is_asked_to_come_again() {
    let bed = Bed::with(false, 100_000).await;
    let form = format!("logout_token={}", bed.logout_token().build());
    let bearer = format!("Bearer {}", bed.authorization().build());
    for (path, fields, body) in [
        ("logout/op", &[FORM][..], form),
        (REVOCATION, &[JSON, ("authorization", bearer.as_str())], ALICE.to_owned()),
        ("ssf/t", &[SET], bed.security_event().build()),
    ] {
        let (status, fields, text) = bed.post(path, fields, Some(&body)).await;
        assert_eq!((status, text.as_str()), (503, r#"{"error":"temporarily_unavailable"}"#), "{path}");
        assert_eq!(fields["retry-after"], "5", "{path}");
    }
    assert_eq!(["logout", "gtr", "ssf"].map(|source| bed.refused(source)), [1, 1, 1]);
    assert!(bed.events().await.is_empty());
}

#[tokio::test]
async fn each_endpoint_says_in_its_own_form_what_is_wrong_before_a_signal_is_read() {
    let bed = Bed::start().await;
    let (no_sender, no_method) =
        ("no sender of this name is configured", "the endpoint does not support this method");
    let scim = |status: &str, detail: &str| json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": status, "detail": detail});
    for (path, method, status, said) in [
        ("ssf/op", "POST", 404, json!({"err": "invalid_request", "description": no_sender})),
        ("ssf/t", "GET", 405, json!({"err": "invalid_request", "description": no_method})),
        ("logout/t", "POST", 404, json!({"error": "invalid_request"})),
        ("logout/op", "PUT", 405, json!({"error": "invalid_request"})),
        ("logout/op/more", "POST", 404, json!({"error": "invalid_request"})),
        (
            "global-token-revocation/op",
            "POST",
            404,
            json!({"error": "invalid_request", "error_description": no_sender}),
        ),
        ("scim/other/v2/Users", "GET", 404, scim("404", no_sender)),
        ("none/op", "POST", 404, json!({"error": "not_found"})),
    ] {
        let endpoint = bed.intake.endpoint(&format!("/signals/{path}")).unwrap();
        let method = Method::try_from(method).unwrap();
        let answer = *bed.intake.admit(&endpoint, &method, "192.0.2.1".parse().unwrap()).unwrap_err();
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!((answer.status().as_u16(), body), (status, said), "{method} {path}");
        let allow = answer.headers().get("allow").map(|value| value.to_str().unwrap());
        assert_eq!(allow, (status == 405).then_some("POST"), "{method} {path}");
    }
    for (path, incomplete) in [
        ("ssf/t", json!({"err": "invalid_request", "description": "timed out while reading the body"})),
        ("scim/idp", scim("408", "timed out while reading the body")),
    ] {
        let answer = bed.intake.incomplete(&bed.intake.endpoint(&format!("/signals/{path}")).unwrap());
        assert_eq!(answer.status(), 408, "{path}");
        assert_eq!(serde_json::from_slice::<Value>(answer.body()).unwrap(), incomplete, "{path}");
    }
}
