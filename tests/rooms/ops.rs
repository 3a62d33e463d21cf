//! The operator's side over real sockets: who may call the admin listener, what errors look like, what
//! readiness reports, and that slow or idle clients block nobody.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a broken promise fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use jsonwebtoken::Algorithm;
use portcullis::admin::{
    Access, AdminLimits, Api, Control, ControlCommand, Health, Ledger, Permission, ReadyWhen, Settings,
    Token, serve_admin, serve_telemetry,
};
use portcullis::config;
use portcullis::enforce::decide::{self, Enforcer, TrustedIssuer};
use portcullis::events::EventLog;
use portcullis::identity::SubjectKey;
use portcullis::keys::store::KeyStore;
use portcullis::keys::{self, KeySource};
use portcullis::log::Refusals;
use portcullis::metrics::Metrics;
use portcullis::revocations::{Ends, Revocations};
use portcullis::sessions::{self, Sessions};
use portcullis::shutdown::{self, Phase, Trigger};
use portcullis::signals::SignalLog;
use portcullis::signals::ssf::Receiver;
use portcullis::state::Store;
use portcullis::time::{Now, Timestamp};
use portcullis::tls::{ServerSettings, ServerTls, Version, server_tls};
use portcullis::usage::Usage;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use testkit::PATIENCE;
use testkit::call::{call, exchange, request};
use testkit::tokens::{Signer, compact};
use testkit::wire::Answer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Problem documents (RFC 9457).
trait Problem {
    /// Asserts the shape and returns the document.
    fn problem(&self, status: u16, title: &str) -> Value;
}

impl Problem for Answer {
    #[track_caller]
    fn problem(&self, status: u16, title: &str) -> Value {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.field("cache-control"), Some("no-store"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], title);
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        problem
    }
}

/// A listener under test; it stops when dropped.
struct Running {
    address: SocketAddr,
    metrics: Metrics,
    trigger: Trigger,
    served: JoinHandle<()>,
}

impl Running {
    async fn admin(limits: AdminLimits, access: Arc<Access>, control: Control) -> Self {
        let (listener, metrics) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Metrics::new().unwrap());
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let nothing = nothing_in_force(&metrics).await;
        let api = Api::new(control, nothing, metrics.clone(), limits);
        let served = tokio::spawn(serve_admin(listener, access, api, Router::new(), shutdown));
        Self { address, metrics, trigger, served }
    }

    async fn telemetry(limits: AdminLimits, stores: Vec<Arc<KeyStore>>) -> (Self, Arc<Health>) {
        let (listener, metrics) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Metrics::new().unwrap());
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let health = Arc::new(Health::new(stores, ReadyWhen::All, shutdown.clone()));
        let served = tokio::spawn(serve_telemetry(
            listener,
            metrics.clone(),
            || {},
            Arc::clone(&health),
            limits,
            shutdown,
        ));
        (Self { address, metrics, trigger, served }, health)
    }
}

fn settings() -> Settings {
    let token = |name: &str, secret: &str, permissions: &[Permission]| Token {
        name: name.to_owned(),
        secret: secret.to_owned(),
        permissions: permissions.to_vec(),
    };
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        tokens: vec![
            token("ops", "s3cret!of/ops", &[Permission::Events, Permission::Config]),
            token("events only", "events-secret", &[Permission::Events]),
            token("last", "l", &[Permission::Config]),
        ],
    }
}

async fn nothing_in_force(metrics: &Metrics) -> Ledger {
    let store = Store::in_memory(Now::read()).unwrap();
    let revocations = Arc::new(Revocations::new(None));
    let sessions = sessions::Settings {
        idle_timeouts: None.into(),
        max_tracked: 1,
        leeway: Duration::ZERO,
        saved: false,
    };
    let log = EventLog::start(store.clone(), Arc::clone(&revocations)).await.unwrap();
    let sessions = Arc::new(Sessions::new(sessions));
    let signals =
        SignalLog::start(Arc::clone(&log), Arc::clone(&revocations), Arc::clone(&sessions), metrics);
    Ledger {
        receiver: Arc::new(Receiver::new(Vec::new(), signals)),
        log,
        revocations,
        sessions,
        usage: Usage::start(metrics.usage.clone(), store).await.unwrap(),
        issuers: Arc::default(),
    }
}

/// A control whose reloads have this outcome.
fn control(outcome: Result<(), Vec<String>>) -> Control {
    let (commands, mut received) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(ControlCommand::Reload(answer)) = received.recv().await {
            drop(answer.send(outcome.clone()));
        }
    });
    let effective = Arc::new(ArcSwap::from_pointee(json!({"server": {"workers": 2}})));
    let enforcer = enforcer(decide::InForce::unlimited());
    Control { commands, effective, enforcer, authority: None, refusals: Refusals::default() }
}

/// One issuer with a secret, and a route `/deals` that requires a read scope.
fn enforcer(in_force: decide::InForce) -> Arc<ArcSwap<Enforcer>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    std::fs::write(&path, CONFIGURATION).unwrap();
    let settings = config::load(&path).unwrap_or_else(|problems| panic!("{problems}")).settings;
    let metrics = Metrics::new().unwrap();
    let issuers = settings.issuers.iter().map(|issuer| TrustedIssuer {
        rules: issuer.rules.clone(),
        keys: KeyStore::new(issuer.keys.clone(), metrics.clone()),
    });
    let enforcer = Enforcer::new(settings.enforce.clone(), issuers.collect(), in_force, &metrics).unwrap();
    Arc::new(ArcSwap::from_pointee(enforcer))
}

const CONFIGURATION: &str = r#"
[server]
listen = ["127.0.0.1:0"]
allow_plaintext = true
[[upstreams]]
name = "api"
url = "http://127.0.0.1:3000"
[[issuers]]
issuer = "https://idp.example.com/"
audiences = ["api"]
algorithms = ["HS256"]
secret = "0123456789abcdef0123456789abcdef"
[[routes]]
path = "/deals"
upstream = "api"
scopes = ["read:deals"]
"#;

/// A token of that issuer, valid for an hour.
fn token(subject: &str, scope: &str) -> String {
    let now = Timestamp::now().as_secs();
    let claims = json!({"iss": "https://idp.example.com/", "aud": "api", "sub": subject, "scope": scope, "iat": now, "exp": now + 3600, "jti": "j"});
    let signer = Signer::secret("HS256", b"0123456789abcdef0123456789abcdef");
    compact(&signer, "HS256", br#"{"alg":"HS256"}"#, claims.to_string().as_bytes())
}

#[tokio::test]
async fn a_token_is_explained_against_live_state() {
    let in_force = decide::InForce::unlimited();
    let control = Control { enforcer: enforcer(in_force.clone()), ..control(Ok(())) };
    let mut settings = settings();
    settings.tokens[0].permissions.push(Permission::Sessions);
    let running =
        Running::admin(AdminLimits::default(), Arc::new(Access::new(&settings, None)), control.clone()).await;
    let explain = async |body: Value| {
        let fields = [OPS, "content-type: application/json"];
        call(running.address, "POST /v1/explain", &fields, &body.to_string()).await
    };
    let find = |told: &Value, check: &str| {
        told["checks"].as_array().unwrap().iter().find(|made| made["check"] == check).unwrap().clone()
    };

    let good = token("alice", "read:deals");
    let told = explain(json!({"token": good, "method": "GET", "path": "/deals"})).await;
    assert_eq!((told.status(), told.field("content-type")), (200, Some("application/json")), "{told:?}");
    assert!(!told.text().contains(good.rsplit_once('.').unwrap().1), "the signature");
    let told = told.json();
    assert_eq!((&told["allowed"], &told["reason"]), (&json!(true), &Value::Null));
    assert_eq!(told.as_object().unwrap().len(), 3);
    assert_eq!(
        find(&told, "scopes"),
        json!({"check": "scopes", "ok": true,
        "detail": r#"required: all of "read:deals"; the token has: "read:deals""#})
    );
    assert_eq!(in_force.sessions.tracked(), 0, "an explanation is no use");
    for (body, reason) in [
        (json!({"token": token("alice", ""), "path": "/deals"}), "insufficient_scope"),
        (json!({"token": good}), "no_route"),
        (json!({"token": good, "method": "GET", "path": "/deals//"}), "bad_target"),
        (json!({"token": "garbage", "path": "/deals", "host": "a"}), "malformed"),
        (json!({"token": format!(" {good}=\n"), "path": "/deals"}), "malformed"),
    ] {
        let told = explain(body.clone()).await.json();
        assert_eq!((&told["allowed"], &told["reason"]), (&json!(false), &json!(reason)), "{body}");
    }

    let ends = Ends::Subject(SubjectKey::new("https://idp.example.com/", "alice"), Timestamp::now());
    in_force.revocations.apply([ends]);
    let told = explain(json!({"token": good, "path": "/deals"})).await.json();
    assert_eq!(told["reason"], "subject_revoked");
    assert_eq!(find(&told, "revocation")["ok"], false);
    control.enforcer.store(enforcer(decide::InForce::unlimited()).load_full());
    assert_eq!(
        explain(json!({"token": good, "path": "/deals"})).await.json()["allowed"],
        true,
        "after a reload"
    );
}

#[tokio::test]
async fn an_explanation_is_asked_for_exactly() {
    let mut settings = settings();
    settings.tokens[0].permissions.push(Permission::Sessions);
    let running =
        Running::admin(AdminLimits::default(), Arc::new(Access::new(&settings, None)), control(Ok(()))).await;
    let (to, json) = (running.address, "content-type: application/json");
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"token":7}"#,
        r#"{"token":"a","token":"b"}"#,
        r#"{"token":"a","at":1}"#,
        r#"{"token":"a","method":"G T"}"#,
        r#"{"token":"a","method":""}"#,
        r#"{"token":"a","path":null}"#,
    ] {
        call(to, "POST /v1/explain", &[OPS, json], body).await.problem(400, "Bad Request");
    }
    call(to, "GET /v1/explain", &[OPS], "").await.problem(405, "Method Not Allowed");
    call(to, "POST /v1/explain", &[json], r#"{"token":"a"}"#).await.problem(401, "Unauthorized");
    let other = "authorization: Bearer events-secret";
    let refused = call(to, "POST /v1/explain", &[other, json], r#"{"token":"a"}"#).await;
    assert!(refused.problem(403, "Forbidden")["detail"].as_str().unwrap().contains("sessions"));
}

async fn admin() -> Running {
    Running::admin(AdminLimits::default(), Arc::new(Access::new(&settings(), None)), control(Ok(()))).await
}

const OPS: &str = "authorization: Bearer s3cret!of/ops";

const NONE: Option<&str> = Some(r#"Bearer realm="portcullis-admin""#);
const BAD: Option<&str> = Some(r#"Bearer realm="portcullis-admin", error="invalid_request""#);
const WRONG: Option<&str> = Some(r#"Bearer realm="portcullis-admin", error="invalid_token""#);
const LACKS: Option<&str> = Some(r#"Bearer realm="portcullis-admin", error="insufficient_scope""#);
/// Request line, fields, status, challenge.
const CALLS: &[(&str, &[&str], u16, Option<&str>)] = &[
    ("GET /v1/config", &[OPS], 200, None),
    ("HEAD /v1/config", &[OPS], 200, None),
    ("POST /v1/reload", &[OPS], 200, None),
    ("GET /v1/config", &["authorization: bearer s3cret!of/ops"], 200, None),
    ("GET /v1/config", &["AUTHORIZATION: BEARER   s3cret!of/ops  "], 200, None),
    ("GET /v1/config", &["authorization: Bearer l"], 200, None),
    ("GET /v1/config?a=b", &[OPS], 200, None),
    ("GET /v1/config", &[], 401, NONE),
    ("POST /v1/reload", &[], 401, NONE),
    ("GET /nowhere", &[], 401, NONE),
    ("DELETE /v1/config", &[], 401, NONE),
    ("GET /v1/config?access_token=s3cret!of/ops", &[], 401, NONE),
    ("GET /v1/config", &["authorization: Basic b3BzOnMzY3JldCFvZi9vcHM="], 401, NONE),
    ("GET /v1/config", &["authorization: s3cret!of/ops"], 401, NONE),
    ("GET /v1/config", &["authorization: Bearers s3cret!of/ops"], 401, NONE),
    ("GET /v1/config", &["authorization:"], 401, NONE),
    ("GET /v1/config", &["proxy-authorization: Bearer s3cret!of/ops"], 401, NONE),
    ("GET /v1/config", &["cookie: authorization=Bearer s3cret!of/ops"], 401, NONE),
    ("GET /v1/config", &["authorization: Bearer"], 400, BAD),
    ("GET /v1/config", &["authorization: Bearer "], 400, BAD),
    ("GET /v1/config", &["authorization: Bearer s3cret!of/ops events-secret"], 400, BAD),
    ("GET /v1/config", &["authorization: Bearer s3cret\u{e9}"], 400, BAD),
    ("GET /v1/config", &[OPS, OPS], 400, BAD),
    ("GET /v1/config", &[OPS, "authorization: Basic eDp5"], 400, BAD),
    ("GET /v1/config", &["authorization: Bearer s3cret!of/op"], 401, WRONG),
    ("GET /v1/config", &["authorization: Bearer s3cret!of/opss"], 401, WRONG),
    ("GET /v1/config", &["authorization: Bearer S3CRET!OF/OPS"], 401, WRONG),
    ("GET /v1/config", &["authorization: Bearer ops"], 401, WRONG),
    ("GET /v1/config", &["authorization: Bearer \"s3cret!of/ops\""], 401, WRONG),
    ("GET /v1/config", &["authorization: Bearer s3cret!of/ops,"], 401, WRONG),
    ("GET /nowhere", &["authorization: Bearer wrong"], 401, WRONG),
    ("GET /v1/config", &["authorization: Bearer events-secret"], 403, LACKS),
    ("POST /v1/reload", &["authorization: Bearer events-secret"], 403, LACKS),
    ("GET /nowhere", &[OPS], 404, None),
    ("GET /", &[OPS], 404, None),
    ("GET /v1/config/", &[OPS], 404, None),
    ("GET /v1/Config", &[OPS], 404, None),
    ("GET /metrics", &[OPS], 404, None),
    ("GET /nowhere", &["authorization: Bearer events-secret"], 404, None),
    ("POST /v1/config", &[OPS], 405, None),
    ("GET /v1/reload", &[OPS], 405, None),
    ("PROPFIND /v1/config", &[OPS], 405, None),
];

#[tokio::test]
async fn the_admin_listener_answers_only_those_it_knows() {
    let running = admin().await;
    for (line, fields, status, challenge) in CALLS {
        let answer = call(running.address, line, fields, "").await;
        assert_eq!(
            (answer.status(), answer.field("www-authenticate")),
            (*status, *challenge),
            "{line} {fields:?}"
        );
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{line} {fields:?}");
        let kind = if *status == 200 { "application/json" } else { "application/problem+json" };
        assert_eq!(answer.field("content-type"), Some(kind), "{line} {fields:?}");
        assert!(!answer.text().contains("s3cret"), "{answer:?}");
    }
    let long = format!("authorization: Bearer {}", "x".repeat(8000));
    assert_eq!(call(running.address, "GET /v1/config", &[&long], "").await.status(), 401);
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let limits =
        AdminLimits { body_bytes: 64, body_timeout: Duration::from_millis(200), ..AdminLimits::default() };
    let access = Arc::new(Access::new(&settings(), None));
    let problems = vec!["gate.toml:3: server.listen: is not an address".to_owned(), "second".to_owned()];
    let running = Running::admin(limits, Arc::clone(&access), control(Err(problems.clone()))).await;
    let to = running.address;
    let json = "content-type: application/json";

    call(to, "GET /nowhere", &[OPS], "").await.problem(404, "Not Found");
    let wrong_method = call(to, "DELETE /v1/config", &[OPS], "").await;
    wrong_method.problem(405, "Method Not Allowed");
    assert_eq!(wrong_method.field("allow"), Some("GET,HEAD"));
    assert_eq!(call(to, "PUT /v1/reload", &[OPS], "").await.field("allow"), Some("POST"));
    call(to, "POST /v1/reload", &[OPS, json], &" ".repeat(65)).await.problem(413, "Payload Too Large");
    let announced = ["content-length: 1000000", "expect: 100-continue", OPS, json];
    call(to, "POST /v1/reload", &announced, "").await.problem(413, "Payload Too Large");
    let chunked = ["transfer-encoding: chunked", OPS, json];
    let raw =
        request("POST /v1/reload", &chunked, "").replace("\r\n\r\n", "\r\n\r\n50\r\n") + &" ".repeat(80);
    let stream = TcpStream::connect(to).await.unwrap();
    exchange(stream, &raw).await.problem(413, "Payload Too Large");
    call(to, "POST /v1/reload", &[OPS], "{}").await.problem(415, "Unsupported Media Type");
    let form = "content-type: application/x-www-form-urlencoded";
    call(to, "POST /v1/reload", &[OPS, form], "a=b").await.problem(415, "Unsupported Media Type");
    call(to, "POST /v1/reload", &[OPS, json], "{").await.problem(400, "Bad Request");
    let unknown = call(to, "POST /v1/reload", &[OPS, json], r#"{"force":true}"#).await;
    assert!(unknown.problem(400, "Bad Request")["detail"].as_str().unwrap().contains("force"));
    call(to, "POST /v1/reload", &[OPS, json, "content-length: 2"], "").await.problem(408, "Request Timeout");
    call(to, "GET /v1/config", &[], "").await.problem(401, "Unauthorized");
    call(to, "GET /v1/config", &["authorization: Bearer events-secret"], "").await.problem(403, "Forbidden");
    let refused =
        call(to, "POST /v1/reload", &[OPS, "content-type: Application/JSON; charset=utf-8"], "{}").await;
    assert_eq!(refused.problem(422, "Unprocessable Entity")["problems"], json!(problems));

    let (commands, closed) = mpsc::channel(1);
    drop(closed);
    let control = Control {
        commands,
        effective: Arc::default(),
        authority: None,
        refusals: Refusals::default(),

        enforcer: enforcer(decide::InForce::unlimited()),
    };
    let leaving = Running::admin(limits, access, control).await;
    call(leaving.address, "POST /v1/reload", &[OPS], "").await.problem(503, "Service Unavailable");
}

#[tokio::test]
async fn the_effective_configuration_is_shown_and_reloaded() {
    let control = control(Ok(()));
    let access = Arc::new(Access::new(&settings(), None));
    let running = Running::admin(AdminLimits::default(), Arc::clone(&access), control.clone()).await;
    let to = running.address;
    assert_eq!(call(to, "GET /v1/config", &[OPS], "").await.json(), json!({"server": {"workers": 2}}));
    control.effective.store(Arc::new(json!({"server": {"workers": 3}})));
    assert_eq!(call(to, "GET /v1/config", &[OPS], "").await.json()["server"]["workers"], 3);
    let form = "content-type: application/x-www-form-urlencoded";
    assert_eq!(call(to, "POST /v1/reload", &[OPS, form], "").await.json(), json!({"reloaded": true}));

    let mut other = settings();
    other.tokens.remove(0);
    access.replace(&other, None);
    assert_eq!(call(to, "GET /v1/config", &[OPS], "").await.status(), 401);
    assert_eq!(call(to, "GET /v1/config", &["authorization: Bearer l"], "").await.status(), 200);
}

fn certificate() -> (Arc<ServerTls>, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = ServerSettings {
        certificate: folder.path().join("server.pem"),
        private_key: folder.path().join("server.key"),
        min_version: Version::Tls12,
        client_ca: None,
        require_client_certificate: false,
        session_tickets: true,
        certificates: Vec::new(),
    };
    std::fs::write(&settings.certificate, made.cert.pem()).unwrap();
    std::fs::write(&settings.private_key, made.signing_key.serialize_pem()).unwrap();
    let server = server_tls(&settings, None).unwrap().http1_only();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(server), Arc::new(client))
}

async fn call_tls(to: SocketAddr, client: &Arc<rustls::ClientConfig>) -> std::io::Result<Answer> {
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, TcpStream::connect(to).await?).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    Ok(exchange(stream, &request("GET /v1/config", &[OPS], "")).await)
}

#[tokio::test]
async fn a_reload_swaps_the_admin_certificate() {
    let ((first, trusts_first), (second, trusts_second)) = (certificate(), certificate());
    let access = Arc::new(Access::new(&settings(), Some(first)));
    let running = Running::admin(AdminLimits::default(), Arc::clone(&access), control(Ok(()))).await;
    assert_eq!(call_tls(running.address, &trusts_first).await.unwrap().status(), 200);
    call_tls(running.address, &trusts_second).await.expect_err("not this certificate yet");
    access.replace(&settings(), Some(second));
    assert_eq!(call_tls(running.address, &trusts_second).await.unwrap().status(), 200);
    call_tls(running.address, &trusts_first).await.expect_err("not this certificate any more");
}

fn store(source: KeySource, metrics: &Metrics) -> Arc<KeyStore> {
    let settings = keys::Settings {
        issuer: "https://idp.example.com/".to_owned(),
        source,
        algorithms: vec![Algorithm::HS256],
        ..keys::Settings::default()
    };
    KeyStore::new(settings, metrics.clone())
}

#[tokio::test]
async fn readiness_says_which_part_cannot_serve() {
    let metrics = Metrics::new().unwrap();
    let absent = store(KeySource::File("/nowhere/jwks.json".into()), &metrics);
    let usable = store(KeySource::Secret(vec![7; 32]), &metrics);
    let (running, health) = Running::telemetry(AdminLimits::default(), vec![absent]).await;
    let to = running.address;
    let ready = async || {
        let answer = call(to, "GET /ready", &[], "").await;
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert_eq!(answer.json()["ready"], answer.status() == 200);
        (answer.status(), answer.json()["components"].clone())
    };
    let components = |keys: &str, state: &str, gate: &str| json!({"keys:https://idp.example.com/": keys, "state": state, "events": "ok", "gate": gate});

    assert_eq!(ready().await, (503, components("never loaded", "ok", "ok")));
    health.replace_keys(vec![usable], ReadyWhen::All);
    assert_eq!(ready().await, (200, components("ok", "ok", "ok")));
    health.report("state", Err("not confirmed for 12 s".to_owned()));
    assert_eq!(ready().await, (503, components("ok", "not confirmed for 12 s", "ok")));
    health.report("state", Ok(()));
    assert_eq!(ready().await, (200, components("ok", "ok", "ok")));
    running.trigger.advance(Phase::Leaving);
    assert_eq!(ready().await, (503, components("ok", "ok", "shutting down")));
    assert_eq!(call(to, "GET /live", &[], "").await.status(), 200);
    running.trigger.advance(Phase::Stopped);
    timeout(PATIENCE, running.served).await.expect("the listener ends").unwrap();
    TcpStream::connect(to).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn telemetry_is_three_pages_to_read() {
    let (running, _health) = Running::telemetry(AdminLimits::default(), Vec::new()).await;
    running.metrics.requests.with_label_values(&["/deals/{*rest}", "GET", "200"]).inc();
    for (line, status) in [
        ("GET /metrics", 200),
        ("HEAD /metrics", 200),
        ("GET /live", 200),
        ("HEAD /live", 200),
        ("GET /ready", 200),
        ("HEAD /ready", 200),
        ("GET /metrics?name[]=x", 200),
        ("POST /metrics", 405),
        ("DELETE /ready", 405),
        ("OPTIONS /live", 405),
        ("GET /", 404),
        ("GET /v1/config", 404),
        ("GET /metrics/", 404),
        ("GET //metrics", 404),
        ("POST /v1/reload", 404),
    ] {
        let answer = call(running.address, line, &[], "").await;
        assert_eq!(answer.status(), status, "{line}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{line}");
        assert_eq!(answer.body.is_empty(), line.starts_with("HEAD"), "{line}");
    }
    let page = call(running.address, "GET /metrics", &[], "").await;
    assert_eq!(page.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        r#"portcullis_requests_total{method="GET",route="/deals/{*rest}",status="200"} 1"#,
        "portcullis_log_lines_dropped_total 0",
        concat!(r#"portcullis_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
    ] {
        assert!(page.text().lines().any(|found| found == line), "{line}\n{}", page.text());
    }
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(page.text().contains(&format!("\n{name} ")), "{name}\n{}", page.text());
    }
}

/// Reads until the other side closes the connection, in whatever way.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let read = async {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    timeout(PATIENCE, read).await.expect("the connection is closed in time");
}

#[tokio::test]
async fn slow_clients_are_closed_and_hold_nobody_up() {
    let limits = AdminLimits { header_timeout: Duration::from_millis(200), ..AdminLimits::default() };
    let (running, _health) = Running::telemetry(limits, Vec::new()).await;
    for start in ["", "GET /live HT", "GET /live HTTP/1.1\r\nhost: gate\r\n"] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        assert_eq!(call(running.address, "GET /live", &[], "").await.status(), 200);
        until_closed(&mut stream).await;
    }
    let (mut reading, mut writing) = TcpStream::connect(running.address).await.unwrap().into_split();
    let drip = tokio::spawn(async move {
        writing.write_all(b"GET /live HTTP/1.1\r\nx: ").await.unwrap();
        while writing.write_all(b"x").await.is_ok() {
            testkit::let_pass_async(Duration::from_millis(20)).await; // the pause of a slow client
        }
    });
    until_closed(&mut reading).await;
    timeout(PATIENCE, drip).await.expect("and cannot be written to").unwrap();
    // A connection that was used and is kept is closed as well.
    let mut kept = TcpStream::connect(running.address).await.unwrap();
    kept.write_all(b"GET /live HTTP/1.1\r\nhost: gate\r\n\r\n").await.unwrap();
    until_closed(&mut kept).await;

    let tls = Arc::new(Access::new(&settings(), Some(certificate().0)));
    let admin = Running::admin(limits, tls, control(Ok(()))).await;
    let mut silent = TcpStream::connect(admin.address).await.unwrap();
    until_closed(&mut silent).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let limits = AdminLimits { connections: 2, ..AdminLimits::default() };
    let (running, _health) = Running::telemetry(limits, Vec::new()).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: gate\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        kept.push(stream);
    }
    let mut third = TcpStream::connect(running.address).await.unwrap();
    until_closed(&mut third).await;
    kept.clear();
    let open = running.metrics.connections.with_label_values(&["telemetry"]);
    testkit::eventually_async("the places are free again", || (open.get() == 0).then_some(())).await;
    assert_eq!(call(running.address, "GET /live", &[], "").await.status(), 200);
}
