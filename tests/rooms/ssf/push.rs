//! The endpoint over real sockets: tokens pushed to the admin listener, keys fetched from a transmitter that
//! rotates them, and what is in force afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use portcullis::admin::{
    Access, AdminLimits, Api, Control, Ledger, Permission, Settings as Admin, Token, serve_admin,
};
use portcullis::client::Client;
use portcullis::enforce;
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::decide::{Enforcer, InForce};
use portcullis::enforce::policy::IdentitySettings;
use portcullis::events::EventLog;
use portcullis::identity::{IssuerKey, SubjectKey, TokenKey};
use portcullis::keys::KeySource;
use portcullis::keys::refresh::spawn_refresher;
use portcullis::keys::store::{Availability, KeyStore};
use portcullis::log::Refusals;
use portcullis::metrics::Metrics;
use portcullis::revocations::{Ended, Revocations, TokenFacts};
use portcullis::shutdown::{self, Shutdown, Trigger};
use portcullis::signals::ssf::{MAX_BYTES, Receiver, Transmitter};
use portcullis::state::Store;
use portcullis::time::{Now, Timestamp};
use portcullis::usage::Usage;
use serde_json::{Value, json};
use testkit::issuer::KeyServer;
use testkit::{PATIENCE, let_pass_async};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::signal_log::Published;

use super::{
    AUDIENCE, ISSUER, SESSION_REVOKED, Settings, Signer, fresh_key, security_event, settings, shared, sign,
    tolerant, transmitter,
};

const SET: &str = "content-type: application/secevent+jwt";
const AUTHORIZED: &str = "authorization: Bearer events-secret";

/// An admin listener with one transmitter, `t`.
struct Gate {
    address: SocketAddr,
    metrics: Metrics,
    revocations: Arc<Revocations>,
    log: Arc<EventLog>,
    _running: Trigger,
}

impl Gate {
    async fn start(transmitter: Transmitter) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, metrics) = (listener.local_addr().unwrap(), Metrics::new().unwrap());
        let store = Store::in_memory(Now::read()).unwrap();
        let Published { log, revocations, sessions, signals } =
            Published::over(store.clone(), &metrics).await;
        let receiver = Arc::new(Receiver::new(shared(transmitter), signals));
        let (commands, _) = mpsc::channel(1);
        let settings = enforce::Settings {
            routes: Vec::new(),
            identity: IdentitySettings::default(),
            bearer: BearerSettings::default(),
            dpop: Default::default(),
            proofs: 1,
        };
        let enforcer = Enforcer::new(settings, Vec::new(), InForce::unlimited(), &metrics).unwrap();
        let enforcer = Arc::new(ArcSwap::from_pointee(enforcer));
        let refusals = Refusals::default();
        let control = Control { commands, effective: Arc::default(), enforcer, authority: None, refusals };
        let token = |secret: &str, permission| Token {
            name: secret.to_owned(),
            secret: secret.to_owned(),
            permissions: vec![permission],
        };
        let tokens =
            vec![token("events-secret", Permission::Events), token("config-secret", Permission::Config)];
        let access = Access::new(&Admin { listen: address, tls: None, tokens }, None);
        let ledger = Ledger {
            log: Arc::clone(&log),
            receiver,
            revocations: Arc::clone(&revocations),
            sessions,
            usage: Usage::start(metrics.usage.clone(), store).await.unwrap(),
            issuers: Arc::default(),
        };
        let (running, shutdown) = shutdown::channel();
        tokio::spawn(serve_admin(
            listener,
            Arc::new(access),
            Api::new(control, ledger, metrics.clone(), AdminLimits::default()),
            Router::new(),
            shutdown,
        ));
        Self { address, metrics, revocations, log, _running: running }
    }

    /// Status, head and body of the response.
    async fn call(&self, line: &str, fields: &[&str], body: &str) -> (u16, String, String) {
        let answer = testkit::call::call(self.address, line, fields, body).await;
        let lines = answer.head.fields.iter().map(|(name, value)| format!("\r\n{name}: {value}"));
        (answer.status(), lines.collect(), answer.text())
    }

    async fn push(&self, token: &str) -> (u16, String, String) {
        self.call("POST /v1/ssf/t", &[AUTHORIZED, SET], token).await
    }

    fn judge(&self, subject: &str, issued_at: Timestamp) -> Option<Ended> {
        self.revocations.load().judge(
            &TokenFacts {
                token: TokenKey::new(ISSUER, "jti"),
                issuer: IssuerKey::new(ISSUER),
                subject: Some(SubjectKey::new(ISSUER, subject)),
                client: None,
                issued_at,
                role_version: None,
                names: None,
            },
            Now::read(),
        )
    }

    fn counted(&self, kind: &str) -> u64 {
        self.metrics.events.with_label_values(&[kind, "ssf"]).get()
    }
}

fn claims(subject: &str, at: Timestamp) -> Value {
    json!({
        "iss": ISSUER, "aud": [AUDIENCE], "jti": subject, "iat": at.as_secs(),
        "sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": subject},
        "events": {SESSION_REVOKED: {}},
    })
}

#[tokio::test]
async fn a_signal_is_in_force_when_it_is_acknowledged() {
    let signer = fresh_key();
    let gate = Gate::start(transmitter(settings(), &signer)).await;
    let now = Timestamp::from_secs(Timestamp::now().as_secs());
    let token = security_event(&signer, &claims("alice", now));
    assert_eq!(gate.judge("alice", now), None);
    for _ in 0..2 {
        let (status, head, body) = gate.push(&token).await;
        assert_eq!((status, body.as_str()), (202, ""), "{head}");
        assert_eq!(gate.judge("alice", now), Some(Ended::Subject));
        assert_eq!(gate.judge("alice", now.plus(Duration::from_secs(1))), None);
        assert_eq!(gate.judge("bob", now), None);
    }
    assert_eq!(gate.log.events(0, 10).await.unwrap().items.len(), 1, "the same token adds nothing");
    assert_eq!(gate.counted("subject-revoked"), 2);

    let mut unknown = claims("bob", now);
    unknown["events"] = json!({"urn:example:whatever": {}});
    assert_eq!(gate.push(&security_event(&signer, &unknown)).await.0, 202);
    unknown["sub_id"]["iss"] = json!("https://other.example.com/");
    unknown["events"] = json!({SESSION_REVOKED: {}});
    assert_eq!(gate.push(&security_event(&signer, &unknown)).await.0, 202);
    assert_eq!(gate.judge("bob", now), None);
    assert_eq!((gate.counted("unknown-event"), gate.counted("other-issuer")), (1, 1));
}

#[tokio::test]
async fn refusals_have_the_form_of_rfc_8935() {
    let signer = fresh_key();
    let gate = Gate::start(transmitter(settings(), &signer)).await;
    let now = Timestamp::now();
    let good = security_event(&signer, &claims("alice", now));
    let forged = security_event(&fresh_key(), &claims("alice", now));
    let elsewhere = security_event(&signer, &json!({"iss": "https://evil.example/"}));
    for (line, fields, body, status, err) in [
        ("POST /v1/ssf/t", &[AUTHORIZED, SET][..], forged.as_str(), 400, "authentication_failed"),
        ("POST /v1/ssf/t", &[AUTHORIZED, SET], &elsewhere, 400, "invalid_issuer"),
        ("POST /v1/ssf/t", &[AUTHORIZED, SET], "", 400, "invalid_request"),
        ("POST /v1/ssf/t", &[AUTHORIZED, SET], "{}", 400, "invalid_request"),
        ("POST /v1/ssf/t", &[AUTHORIZED], &good, 400, "invalid_request"),
        ("POST /v1/ssf/t", &[AUTHORIZED, "content-type: application/json"], &good, 400, "invalid_request"),
        ("POST /v1/ssf/t", &[AUTHORIZED, SET, SET], &good, 400, "invalid_request"),
        ("POST /v1/ssf/other", &[AUTHORIZED, SET], &good, 404, "invalid_request"),
    ] {
        let (got, head, answer) = gate.call(line, fields, body).await;
        assert_eq!(got, status, "{line} {fields:?}: {head}");
        assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
        assert!(head.contains("\r\ncontent-language: en"), "{head}");
        assert!(head.contains("\r\ncache-control: no-store"), "{head}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["err"], err);
        assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert_eq!(answer.as_object().unwrap().len(), 2);
    }
    let huge = "x".repeat(MAX_BYTES + 1);
    for (line, fields, body, status) in [
        ("POST /v1/ssf/t", &[SET][..], good.as_str(), 401),
        ("POST /v1/ssf/t", &["authorization: Bearer config-secret", SET], &good, 403),
        ("GET /v1/ssf/t", &[AUTHORIZED], "", 405),
        ("POST /v1/ssf/t/x", &[AUTHORIZED, SET], &good, 404),
        ("POST /v1/ssf/t", &[AUTHORIZED, SET], &huge, 413),
    ] {
        assert_eq!(gate.call(line, fields, body).await.0, status, "{line} {fields:?}");
    }
    assert_eq!(gate.log.events(0, 10).await.unwrap().items, []);
    assert_eq!(gate.push(&good).await.0, 202);
}

#[tokio::test]
async fn apple_hears_ok() {
    let signer = fresh_key();
    let gate = Gate::start(transmitter(tolerant(), &signer)).await;
    let now = Timestamp::now();
    let event = json!({"type": "account-delete", "sub": "001.a.2", "event_time": now.as_millis()});
    let mut claims = claims("set-1", now);
    claims["events"] = json!(event.to_string());
    claims.as_object_mut().unwrap().remove("sub_id");
    let body = json!({"payload": sign(&signer, r#"{"alg":"ES256","kid":"a"}"#, &claims.to_string())});
    let fields = [AUTHORIZED, "content-type: application/json; charset=utf-8"];
    let (status, _, body) = gate.call("POST /v1/ssf/t", &fields, &body.to_string()).await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(gate.judge("001.a.2", now), Some(Ended::Subject));
}

async fn fetching(server: &KeyServer, settings: Settings, shutdown: Shutdown) -> Transmitter {
    let mut settings = settings;
    settings.keys.source = KeySource::Url(server.jwks_url());
    let keys = KeyStore::new(settings.keys.clone(), Metrics::new().unwrap());
    let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let client = Client::new(Arc::new(tls.with_no_client_auth()));
    drop(spawn_refresher(Arc::clone(&keys), client, shutdown));
    let mut loaded = keys.last_good();
    timeout(PATIENCE, loaded.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(keys.availability(Now::read()), Availability::Usable);
    Transmitter::new(settings, keys)
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (fresh_key(), fresh_key());
    let server = KeyServer::start(json!({"keys": [old.jwk()]}));
    let (_trigger, shutdown) = shutdown::channel();
    let gate = Gate::start(fetching(&server, settings(), shutdown).await).await;
    let now = Timestamp::now();
    assert_eq!(gate.push(&security_event(&old, &claims("alice", now))).await.0, 202);
    assert_eq!(server.fetches(), 1);

    let mut renamed = new;
    renamed.kid = "b".to_owned();
    server.set_keys(json!({"keys": [renamed.jwk()]}));
    let header = r#"{"alg":"ES256","kid":"b","typ":"secevent+jwt"}"#;
    let rotated = sign(&renamed, header, &claims("bob", now).to_string());
    assert_eq!(gate.push(&rotated).await.0, 202);
    assert_eq!(gate.judge("bob", now), Some(Ended::Subject));
    assert_eq!(server.fetches(), 2);

    let (status, _, body) = gate.push(&security_event(&old, &claims("carol", now))).await;
    assert_eq!(status, 400, "the old key is gone: {body}");
    assert!(body.contains("invalid_key"), "{body}");
    assert_eq!(server.fetches(), 2, "one fetch per cooldown");
}

/// A rejected signal is not repeated, so a transmitter's new key must be found with its first signal.
#[tokio::test]
async fn a_new_key_under_an_old_name_is_fetched_when_a_token_is_signed_by_it() {
    for header in
        [r#"{"alg":"ES256","kid":"a","typ":"secevent+jwt"}"#, r#"{"alg":"ES256","typ":"secevent+jwt"}"#]
    {
        let (old, new, forger) = (fresh_key(), fresh_key(), fresh_key());
        let server = KeyServer::start(json!({"keys": [old.jwk()]}));
        let (_trigger, shutdown) = shutdown::channel();
        let gate = Gate::start(fetching(&server, settings(), shutdown).await).await;
        let now = Timestamp::now();
        assert_eq!(gate.push(&security_event(&old, &claims("alice", now))).await.0, 202);
        server.set_keys(json!({"keys": [new.jwk()]}));
        let signed = |signer: &Signer, subject| sign(signer, header, &claims(subject, now).to_string());
        assert_eq!(gate.push(&signed(&new, "bob")).await.0, 202, "{header}");
        assert_eq!(gate.judge("bob", now), Some(Ended::Subject));
        assert_eq!(server.fetches(), 2, "{header}");
        for signer in [&old, &forger] {
            let (status, _, body) = gate.push(&signed(signer, "carol")).await;
            assert_eq!(status, 400, "{header}: {body}");
            assert!(body.contains("authentication_failed"), "{body}");
        }
        assert_eq!(gate.judge("carol", now), None);
        assert_eq!(server.fetches(), 2, "one fetch per cooldown: {header}");
    }
}

#[tokio::test]
async fn without_keys_the_transmitter_is_asked_to_come_back() {
    let settings = settings();
    let keys = KeyStore::new(settings.keys.clone(), Metrics::new().unwrap());
    let gate = Gate::start(Transmitter::new(settings, keys)).await;
    let (status, head, _) =
        gate.push(&security_event(&fresh_key(), &claims("alice", Timestamp::now()))).await;
    assert_eq!(status, 503);
    assert!(head.contains("\r\nretry-after: "), "{head}");
    assert_eq!(gate.judge("alice", Timestamp::now()), None);
}

/// A transmitter need not repeat what was rejected, so the first signal waits for the first fetch of the keys.
#[tokio::test]
async fn a_signal_that_comes_before_the_first_keys_waits_for_them() {
    let signer = fresh_key();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings();
    settings.keys.source = KeySource::Url(format!("http://{}/jwks", server.local_addr().unwrap()));
    let keys = KeyStore::new(settings.keys.clone(), Metrics::new().unwrap());
    let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let client = Client::new(Arc::new(tls.with_no_client_auth()));
    let (_trigger, shutdown) = shutdown::channel();
    drop(spawn_refresher(Arc::clone(&keys), client, shutdown));
    let (mut asked, _) = timeout(PATIENCE, server.accept()).await.unwrap().unwrap();
    let gate = Gate::start(Transmitter::new(settings, keys)).await;
    let now = Timestamp::now();
    let signal = security_event(&signer, &claims("alice", now));
    let answered = async {
        // Nothing tells that a signal waits; without waiting it is answered by then.
        let_pass_async(Duration::from_millis(200)).await;
        let body = json!({"keys": [signer.jwk()]}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        asked.write_all((head + &body).as_bytes()).await.unwrap();
        asked.shutdown().await.unwrap();
    };
    let ((status, _, body), ()) = tokio::join!(gate.push(&signal), answered);
    assert_eq!(status, 202, "{body}");
    assert_eq!(gate.judge("alice", now), Some(Ended::Subject));
}
