//! The key store against a real issuer on a loopback socket: one that counts requests, rotates, fails,
//! hangs and misbehaves.
//!
//! A paused clock jumps to the next timer whenever the runtime only waits for a socket, so tests with an issuer
//! use the real clock with short intervals; those with a file use the paused one.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail as the test does")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::Algorithm;
use portcullis::client::{Client, GetError, Url};
use portcullis::keys::refresh::spawn_refresher;
use portcullis::keys::store::{Availability, KeyStore, WantedKey};
use portcullis::keys::{KeySource, Settings};
use portcullis::metrics::Metrics;
use portcullis::shutdown::{self, Phase, Trigger};
use portcullis::time::{Monotonic, Now};
use testkit::ports::ClaimedPort;
use testkit::tokens::Signer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const MIB: usize = 1024 * 1024;

/// How the issuer responds to a request for its keys.
#[derive(Clone)]
enum Answer {
    Document(String),
    Status(StatusCode),
    Redirect,
    Compressed,
    /// This many bytes, with a `Content-Length` or chunked.
    Huge(usize, bool),
    /// No response until another one is set.
    Hang,
}

/// An issuer on a loopback socket. Keys are at `/jwks`; other paths return `metadata`.
struct Issuer {
    address: SocketAddr,
    answer: watch::Sender<Answer>,
    metadata: std::sync::Mutex<Vec<(String, StatusCode, String)>>,
    fetches: AtomicUsize,
}

impl Issuer {
    async fn start(answer: Answer) -> Arc<Self> {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer, None)
    }

    fn start_on(listener: TcpListener, answer: Answer, tls: Option<Arc<rustls::ServerConfig>>) -> Arc<Self> {
        let issuer = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            answer: watch::Sender::new(answer),
            metadata: std::sync::Mutex::default(),
            fetches: AtomicUsize::new(0),
        });
        tokio::spawn(Arc::clone(&issuer).accept(listener, tls));
        issuer
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            match tls.clone() {
                None => drop(tokio::spawn(Arc::clone(&self).serve(socket))),
                Some(tls) => drop(tokio::spawn(Arc::clone(&self).serve_tls(socket, tls))),
            }
        }
    }

    async fn serve_tls(self: Arc<Self>, socket: TcpStream, tls: Arc<rustls::ServerConfig>) {
        // A client that does not trust the certificate is part of the tests.
        if let Ok(socket) = TlsAcceptor::from(tls).accept(socket).await {
            self.serve(socket).await;
        }
    }

    async fn serve(self: Arc<Self>, socket: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: Request<Incoming>| {
            let issuer = Arc::clone(&self);
            async move { Ok::<_, Infallible>(issuer.respond(request.uri().path()).await) }
        });
        // A client that hangs up early is part of the tests.
        drop(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await,
        );
    }

    async fn respond(&self, path: &str) -> Response<BoxBody<Bytes, Infallible>> {
        if path != "/jwks" {
            let metadata = self.metadata.lock().unwrap();
            let found = metadata.iter().find(|(at, _, _)| at == path);
            let (_, status, body) =
                found.cloned().unwrap_or((String::new(), StatusCode::NOT_FOUND, String::new()));
            return full(Response::builder().status(status).header("location", "/jwks"), body);
        }
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answer.subscribe();
        let answer = answers.wait_for(|answer| !matches!(answer, Answer::Hang)).await.unwrap().clone();
        match answer {
            Answer::Document(body) => full(Response::builder(), body),
            Answer::Status(status) => full(Response::builder().status(status), "{}".to_owned()),
            Answer::Redirect => {
                full(Response::builder().status(302).header("location", "/jwks"), String::new())
            }
            Answer::Compressed => {
                full(Response::builder().header("content-encoding", "gzip"), "{}".to_owned())
            }
            Answer::Huge(bytes, true) => full(Response::builder(), " ".repeat(bytes)),
            Answer::Huge(bytes, false) => {
                let chunks = std::iter::repeat_n(Bytes::from_static(&[b' '; 1024]), bytes / 1024);
                let frames = chunks.map(|chunk| Ok(Frame::data(chunk)));
                Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))))
            }
            Answer::Hang => unreachable!("waited for another"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn set(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    fn set_metadata(&self, path: &str, status: u16, body: impl Into<String>) {
        let status = StatusCode::from_u16(status).unwrap();
        self.metadata.lock().unwrap().push((path.to_owned(), status, body.into()));
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

fn full(builder: http::response::Builder, body: String) -> Response<BoxBody<Bytes, Infallible>> {
    builder.body(Full::from(body).boxed()).unwrap()
}

fn signer(kid: &str) -> Signer {
    Signer::new("ES256", kid)
}

/// Whether `store` verifies a new signature of this key under `kid`.
fn proves(store: &KeyStore, signer: &Signer, kid: &str) -> bool {
    let signature = signer.sign_as("ES256", b"message");
    let set = store.current();
    set.candidates(Some(kid), Algorithm::ES256)
        .any(|key| key.verify(Algorithm::ES256, b"message", &signature))
}

fn jwks(signers: &[&Signer]) -> String {
    serde_json::json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// A store with its refresher.
struct Running {
    store: Arc<KeyStore>,
    metrics: Metrics,
    trigger: Trigger,
    refresher: JoinHandle<()>,
}

impl Running {
    fn start(settings: Settings) -> Self {
        Self::start_with(settings, Client::new(trusting(&[])))
    }

    fn start_with(settings: Settings, client: Client) -> Self {
        let metrics = Metrics::new().unwrap();
        let store = KeyStore::new(settings, metrics.clone());
        store.begin_export(Now::read());
        let (trigger, shutdown) = shutdown::channel();
        let refresher = spawn_refresher(Arc::clone(&store), client, shutdown);
        Self { store, metrics, trigger, refresher }
    }

    async fn loaded(settings: Settings) -> Self {
        let running = Self::start(settings);
        until("the keys are loaded", || running.is_usable()).await;
        running
    }

    fn is_usable(&self) -> bool {
        self.store.availability(Now::read()) == Availability::Usable
    }

    fn refreshes(&self, result: &str) -> u64 {
        self.metrics.keys_refresh.with_label_values(&[&self.store.settings().issuer, result]).get()
    }
}

fn settings(source: KeySource) -> Settings {
    Settings {
        issuer: "https://idp.example.com/".to_owned(),
        source,
        algorithms: vec![Algorithm::ES256],
        ..Settings::default()
    }
}

fn trusting(roots: &[rustls::pki_types::CertificateDer<'static>]) -> Arc<rustls::ClientConfig> {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    Arc::new(rustls::ClientConfig::builder().with_root_certificates(store).with_no_client_auth())
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    testkit::eventually_async(what, || condition().then_some(())).await;
}

/// Runs `work` on separate threads, each with its own runtime, like the workers of the gate.
fn on_workers<F: Future<Output = ()>>(
    work: impl Fn(usize) -> F + Send + Sync + Copy + 'static,
) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(work(worker));
                });
            }
        });
    })
}

/// Leaks a value, to share it with the threads of a test.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[tokio::test]
async fn two_hundred_requests_with_a_new_kid_share_one_fetch() {
    let (old, new) = (signer("old"), signer("new"));
    let issuer = Issuer::start(Answer::Document(jwks(&[&old]))).await;
    let running = Running::loaded(settings(KeySource::Url(issuer.url("/jwks")))).await;
    assert!(proves(&running.store, &old, "old"));
    assert_eq!(issuer.fetches(), 1);

    issuer.set(Answer::Hang);
    let store: &'static Arc<KeyStore> = leak(Arc::clone(&running.store));
    let waiting: &'static AtomicUsize = leak(AtomicUsize::new(0));
    let asks = on_workers(move |_| async move {
        let ask = async || {
            assert!(store.worth_asking(&WantedKey::key("new"), Monotonic::now()));
            waiting.fetch_add(1, Ordering::SeqCst);
            store.ask(&WantedKey::key("new")).await;
            assert!(store.current().knows("new"), "an ask returned without the key");
        };
        join_all((0..50).map(|_| ask())).await;
    });
    until("all are waiting for a fetch", || waiting.load(Ordering::SeqCst) == 200 && issuer.fetches() == 2)
        .await;
    issuer.set(Answer::Document(jwks(&[&old, &new])));
    asks.await.unwrap();
    assert_eq!(issuer.fetches(), 2, "one fetch for all");
    assert!(proves(&running.store, &new, "new"));
    assert!(proves(&running.store, &old, "old"));
    assert!(!proves(&running.store, &new, "old"), "a kid names its own key");
}

#[tokio::test]
async fn a_flood_of_random_kids_causes_one_fetch_per_cooldown() {
    let key = signer("a");
    let issuer = Issuer::start(Answer::Document(jwks(&[&key]))).await;
    // Longer than the test could take on the slowest machine.
    let cooldown = Duration::from_secs(600);
    let source = KeySource::Url(issuer.url("/jwks"));
    let running = Running::loaded(Settings { refresh_cooldown: cooldown, ..settings(source) }).await;
    let store: &'static Arc<KeyStore> = leak(Arc::clone(&running.store));
    let asked: &'static AtomicUsize = leak(AtomicUsize::new(0));
    on_workers(move |worker| async move {
        for i in 0..2_000 {
            // Also without looking first, because the limit must not depend on polite callers.
            if i % 2 == 0 || store.worth_asking(&WantedKey::key(&format!("{worker}-{i}")), Monotonic::now()) {
                asked.fetch_add(1, Ordering::SeqCst);
                store.ask(&WantedKey::key(&format!("{worker}-{i}"))).await;
            }
        }
    })
    .await
    .unwrap();
    assert!(asked.load(Ordering::SeqCst) >= 4_000);
    assert_eq!(issuer.fetches(), 2, "the first load and one more");

    let now = Monotonic::now();
    assert!(!store.worth_asking(&WantedKey::key("fresh"), now));
    assert!(store.worth_asking(&WantedKey::key("fresh"), now.plus(cooldown)), "after the cooldown");
    assert!(store.worth_asking(&WantedKey::key("a"), now), "a known one: the caller looked before it came");
}

#[tokio::test]
async fn the_cooldown_paces_repeated_asks() {
    const COOLDOWN: Duration = Duration::from_millis(100);
    let issuer = Issuer::start(Answer::Document(jwks(&[&signer("a")]))).await;
    let source = KeySource::Url(issuer.url("/jwks"));
    let running = Running::loaded(Settings { refresh_cooldown: COOLDOWN, ..settings(source) }).await;
    let begun = Instant::now();
    let asks = async {
        while issuer.fetches() < 5 {
            running.store.ask(&WantedKey::key("missing")).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(testkit::PATIENCE, asks).await.expect("asks are honoured again after the cooldown");
    assert!(begun.elapsed() >= COOLDOWN * 3, "four fetches need three cooldowns");
}

#[tokio::test]
async fn a_kid_that_nobody_knows_does_not_wait_for_other_fetches() {
    let issuer = Issuer::start(Answer::Document(jwks(&[&signer("a")]))).await;
    let source = KeySource::Url(issuer.url("/jwks"));
    let running =
        Running::loaded(Settings { refresh_interval: Duration::from_millis(500), ..settings(source) }).await;
    running.store.ask(&WantedKey::key("missing")).await;
    issuer.set(Answer::Hang);
    let before = issuer.fetches();
    until("the regular fetch hangs", || issuer.fetches() > before).await;
    let now = Monotonic::now();
    assert!(!running.store.worth_asking(&WantedKey::key("missing"), now), "remembered");
    assert!(running.store.worth_asking(&WantedKey::key("other"), now), "may be in what is under way");
    issuer.set(Answer::Document(jwks(&[&signer("other")])));
    running.store.ask(&WantedKey::key("other")).await;
    assert!(running.store.current().knows("other"), "joined the fetch under way");
}

#[tokio::test]
async fn the_last_good_set_survives_every_failure() {
    let key = signer("a");
    let good = Answer::Document(jwks(&[&key]));
    let issuer = Issuer::start(good.clone()).await;
    let quick = Duration::from_millis(20);
    let source = KeySource::Url(issuer.url("/jwks"));
    let running = Running::loaded(Settings { refresh_interval: quick, ..settings(source) }).await;
    let set = running.store.current();
    let weak = r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"a"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
    for (name, answer) in [
        ("500", Answer::Status(StatusCode::INTERNAL_SERVER_ERROR)),
        ("404", Answer::Status(StatusCode::NOT_FOUND)),
        ("204", Answer::Status(StatusCode::NO_CONTENT)),
        ("redirect", Answer::Redirect),
        ("compressed", Answer::Compressed),
        ("2 MiB", Answer::Huge(2 * MIB, true)),
        ("2 MiB chunked", Answer::Huge(2 * MIB, false)),
        ("1 MiB of blanks", Answer::Huge(MIB, false)),
        ("garbage", Answer::Document("<html>maintenance</html>".to_owned())),
        ("nothing", Answer::Document(String::new())),
        ("no keys", Answer::Document(r#"{"keys":[]}"#.to_owned())),
        ("no usable key", Answer::Document(weak.to_owned())),
        ("half a set", Answer::Document(jwks(&[&key]).chars().take(80).collect())),
        ("silence", Answer::Hang),
    ] {
        issuer.set(answer);
        let failed = running.refreshes("error");
        until(name, || running.refreshes("error") > failed).await;
        assert!(Arc::ptr_eq(&running.store.current(), &set), "{name}: the set was replaced");
        assert!(running.is_usable(), "{name}");
        assert!(proves(&running.store, &key, "a"), "{name}");
        issuer.set(good.clone());
        let succeeded = running.refreshes("ok");
        until("recovery", || running.refreshes("ok") > succeeded).await;
        assert!(Arc::ptr_eq(&running.store.current(), &set), "{name}: same content, same generation");
    }
}

#[tokio::test]
async fn the_last_good_set_serves_until_max_stale() {
    let key = signer("a");
    let issuer = Issuer::start(Answer::Document(jwks(&[&key]))).await;
    let quick = Duration::from_millis(20);
    let source = KeySource::Url(issuer.url("/jwks"));
    let running = Running::loaded(Settings { refresh_interval: quick, ..settings(source) }).await;
    issuer.set(Answer::Status(StatusCode::SERVICE_UNAVAILABLE));
    until("an outage", || running.refreshes("error") > 0).await;
    let (now, day) = (Now::read(), Duration::from_secs(86_400));
    let just_before = now.plus(day - Duration::from_secs(60));
    assert_eq!(running.store.availability(just_before), Availability::Usable);
    assert_eq!(running.store.availability(now.plus(day)), Availability::TooOld);
    issuer.set(Answer::Document(jwks(&[&key])));
    let succeeded = running.refreshes("ok");
    until("the end of the outage", || running.refreshes("ok") > succeeded).await;
    assert_eq!(running.store.availability(now.plus(day)), Availability::Usable, "the age starts again");
}

#[tokio::test]
async fn a_rotation_is_noticed_at_the_interval_and_the_old_key_stops_working() {
    let (a, b) = (signer("a"), signer("b"));
    let issuer = Issuer::start(Answer::Document(jwks(&[&a, &b]))).await;
    let quick = Duration::from_millis(20);
    let source = KeySource::Url(issuer.url("/jwks"));
    let running = Running::loaded(Settings { refresh_interval: quick, ..settings(source) }).await;
    let first = running.store.current();
    let mut last_good = running.store.last_good();
    last_good.borrow_and_update();

    issuer.set(Answer::Document(format!("  {}  ", jwks(&[&b, &a]))));
    let succeeded = running.refreshes("ok");
    until("two more refreshes", || running.refreshes("ok") >= succeeded + 2).await;
    assert_eq!(running.store.current().generation(), first.generation(), "other spelling, same keys");
    assert!(last_good.has_changed().unwrap());

    let replaced = signer("b");
    issuer.set(Answer::Document(jwks(&[&replaced])));
    until("the rotation", || running.store.current().generation() != first.generation()).await;
    assert!(!proves(&running.store, &a, "a"), "removed");
    assert!(!proves(&running.store, &b, "b"), "replaced under the same kid");
    assert!(proves(&running.store, &replaced, "b"));
    assert_eq!(last_good.borrow().as_ref().unwrap().jwks, jwks(&[&replaced]));
    assert!(
        running
            .metrics
            .render()
            .unwrap()
            .contains("portcullis_keys{issuer=\"https://idp.example.com/\"} 1\n")
    );
}

#[tokio::test]
async fn keys_of_one_kid_are_all_tried() {
    let (a, b) = (signer("same"), signer("same"));
    let issuer = Issuer::start(Answer::Document(jwks(&[&a, &b]))).await;
    let running = Running::loaded(settings(KeySource::Url(issuer.url("/jwks")))).await;
    assert!(proves(&running.store, &a, "same") && proves(&running.store, &b, "same"));
    assert!(!proves(&running.store, &signer("same"), "same"));
}

#[tokio::test]
async fn a_store_comes_up_by_itself_once_the_issuer_does() {
    let place = ClaimedPort::new();
    let address = place.address;
    let running = Running::start(settings(KeySource::Url(format!("http://{address}/jwks"))));
    until("nobody listens", || running.refreshes("error") >= 1).await;
    assert_eq!(running.store.availability(Now::read()), Availability::NeverLoaded);
    assert!(
        !running.store.worth_asking(&WantedKey::key("a"), Monotonic::now()),
        "asking does not hurry the first load"
    );

    let listener = TcpListener::bind(address).await.unwrap();
    let issuer = Issuer::start_on(listener, Answer::Status(StatusCode::SERVICE_UNAVAILABLE), None);
    until("it listens but fails", || issuer.fetches() >= 2).await;
    assert_eq!(running.store.availability(Now::read()), Availability::NeverLoaded);
    assert!(running.store.current().is_empty());
    issuer.set(Answer::Document(jwks(&[&signer("a")])));
    until("it works", || running.is_usable()).await;
    assert!(running.store.current().knows("a"));
}

#[tokio::test]
async fn keys_are_found_by_discovery_in_either_place() {
    let key = signer("a");
    let issuer = Issuer::start(Answer::Document(jwks(&[&key]))).await;
    let name = |path: &str| issuer.url(path);
    let metadata = |issuer_name: &str| {
        format!(
            r#"{{"issuer":"{issuer_name}","jwks_uri":"{}","response_types_supported":["code"]}}"#,
            name("/jwks")
        )
    };
    let oauth = "/.well-known/oauth-authorization-server";
    issuer.set_metadata("/.well-known/openid-configuration", 200, metadata(&name("/")));
    issuer.set_metadata("/realms/a/.well-known/openid-configuration", 200, metadata(&name("/realms/a")));
    issuer.set_metadata(&format!("{oauth}/realms/b"), 200, metadata(&name("/realms/b")));
    issuer.set_metadata("/realms/c/.well-known/openid-configuration", 302, "");
    issuer.set_metadata(&format!("{oauth}/realms/c"), 200, metadata(&name("/realms/c/")));
    for path in ["/", "/realms/a", "/realms/b", "/realms/c/"] {
        let running =
            Running::loaded(Settings { issuer: name(path), ..settings(KeySource::Discovery) }).await;
        assert!(proves(&running.store, &key, "a"), "{path}");
    }
}

#[tokio::test]
async fn metadata_that_does_not_fit_is_refused() {
    let issuer = Issuer::start(Answer::Document(jwks(&[&signer("a")]))).await;
    let at = |path: &str| issuer.url(path);
    let document = |name: &str, jwks_uri: &str| format!(r#"{{"issuer":"{name}","jwks_uri":"{jwks_uri}"}}"#);
    for (path, body) in [
        ("/slash", document(&at("/slash/"), &at("/jwks"))),
        ("/other", document("https://evil.example.com", &at("/jwks"))),
        ("/insecure", document(&at("/insecure"), "http://idp.example.com/jwks")),
        ("/file", document(&at("/file"), "file:///etc/passwd")),
        ("/relative", document(&at("/relative"), "/jwks")),
        ("/nowhere", format!(r#"{{"issuer":"{}"}}"#, at("/nowhere"))),
        ("/twice", format!(r#"{{"issuer":"x","issuer":"{}","jwks_uri":"{}"}}"#, at("/twice"), at("/jwks"))),
        ("/garbage", "<html>".to_owned()),
    ] {
        issuer.set_metadata(&format!("{path}/.well-known/openid-configuration"), 200, body);
        // A second document that would fit: a wrong first one is not a reason to look further.
        let second = format!("/.well-known/oauth-authorization-server{path}");
        issuer.set_metadata(&second, 200, document(&at(path), &at("/jwks")));
        let running = Running::start(Settings { issuer: at(path), ..settings(KeySource::Discovery) });
        until(path, || running.refreshes("error") >= 1).await;
        assert_eq!(running.store.availability(Now::read()), Availability::NeverLoaded, "{path}");
    }
    let running = Running::start(Settings { issuer: at("/absent"), ..settings(KeySource::Discovery) });
    until("no metadata at all", || running.refreshes("error") >= 1).await;
    assert_eq!(issuer.fetches(), 0, "no key was ever fetched");
}

#[tokio::test]
async fn an_issuer_behind_tls_must_prove_its_name() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answer = Answer::Document(jwks(&[&signer("a")]));
    let issuer = Issuer::start_on(listener, answer, Some(Arc::new(tls.unwrap())));
    let source = |host: &str| KeySource::Url(format!("https://{host}:{}/jwks", issuer.address.port()));

    let stranger =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.der().clone();
    for (source, root) in [(source("localhost"), &stranger), (source("127.0.0.1"), &certificate)] {
        let client = Client::new(trusting(std::slice::from_ref(root)));
        let running = Running::start_with(settings(source), client);
        until("the certificate is refused", || running.refreshes("error") >= 1).await;
    }
    assert_eq!(issuer.fetches(), 0);
    let running = Running::start_with(settings(source("localhost")), Client::new(trusting(&[certificate])));
    until("the certificate is trusted", || running.is_usable()).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_noticed_and_a_broken_one_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let write = |document: &str| write_aside(&path, document);
    // Of different lengths: on the paused clock, two documents may be written within one tick of the file system's clock.
    let (a, b, c) = (signer("a"), signer("bb"), signer("ccc"));
    let running = Running::start(settings(KeySource::File(path.clone())));
    until("there is no file yet", || running.refreshes("error") >= 1).await;
    assert_eq!(running.store.availability(Now::read()), Availability::NeverLoaded);

    write(&jwks(&[&a]));
    until("the file appears", || proves(&running.store, &a, "a")).await;
    write(&jwks(&[&b]));
    until("the file changes", || proves(&running.store, &b, "bb")).await;
    assert!(!proves(&running.store, &a, "a"));

    let failed = running.refreshes("error");
    write("{ half a");
    until("the file breaks", || running.refreshes("error") == failed + 1).await;
    assert!(proves(&running.store, &b, "bb"));
    write(&format!("{}{}", jwks(&[&c]), " ".repeat(MIB)));
    until("the file is too large", || running.refreshes("error") == failed + 2).await;
    assert!(proves(&running.store, &b, "bb"));
    std::fs::remove_file(&path).unwrap();
    until("the file is gone", || running.refreshes("error") == failed + 3).await;
    assert!(proves(&running.store, &b, "bb") && running.is_usable());
    write(&jwks(&[&c]));
    until("the file is whole again", || proves(&running.store, &c, "ccc")).await;
    assert_eq!(running.refreshes("error"), failed + 3, "counted once per change");
}

/// Writes a file as careful operators do: a new file, renamed over the old one.
fn write_aside(path: &Path, document: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, document).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn the_refresher_ends_with_the_process_and_releases_who_waits() {
    let issuer = Issuer::start(Answer::Document(jwks(&[&signer("a")]))).await;
    let running = Running::loaded(settings(KeySource::Url(issuer.url("/jwks")))).await;
    running.trigger.advance(Phase::Draining);
    issuer.set(Answer::Hang);
    let store = Arc::clone(&running.store);
    let waiting = tokio::spawn(async move { store.ask(&WantedKey::key("b")).await });
    until("a fetch while draining", || issuer.fetches() == 2).await;
    running.trigger.advance(Phase::Stopped);
    tokio::time::timeout(testkit::PATIENCE, running.refresher).await.expect("ends").unwrap();
    tokio::time::timeout(testkit::PATIENCE, waiting).await.expect("released").unwrap();
    let later = Monotonic::now().plus(Duration::from_secs(3600));
    assert!(!running.store.worth_asking(&WantedKey::key("c"), later), "nobody fetches any more");

    let secret = Running::start(settings(KeySource::Secret(vec![1; 32])));
    tokio::time::timeout(testkit::PATIENCE, secret.refresher).await.expect("nothing to fetch").unwrap();
    assert_eq!(secret.store.availability(Now::read()), Availability::Usable);
}

#[tokio::test]
async fn the_client_takes_a_complete_200_and_nothing_else() {
    let issuer = Issuer::start(Answer::Hang).await;
    let client = Client::new(trusting(&[]));
    let url = Url::parse(&issuer.url("/jwks"), false).unwrap();
    type Expected = fn(&GetError) -> bool;
    let rows: [(Answer, Expected); 7] = [
        (Answer::Status(StatusCode::NO_CONTENT), |e| matches!(e, GetError::Status(s) if s.as_u16() == 204)),
        (
            Answer::Status(StatusCode::PARTIAL_CONTENT),
            |e| matches!(e, GetError::Status(s) if s.as_u16() == 206),
        ),
        (Answer::Status(StatusCode::BAD_GATEWAY), |e| matches!(e, GetError::Status(s) if s.as_u16() == 502)),
        (Answer::Redirect, |e| matches!(e, GetError::Redirect(s) if s.as_u16() == 302)),
        (Answer::Compressed, |e| matches!(e, GetError::Encoding)),
        (Answer::Huge(2 * MIB, true), |e| matches!(e, GetError::TooLarge)),
        (Answer::Huge(2 * MIB, false), |e| matches!(e, GetError::TooLarge)),
    ];
    for (number, (answer, expected)) in rows.into_iter().enumerate() {
        issuer.set(answer);
        let error = client.get(&url).await.unwrap_err();
        assert!(expected(&error), "row {number}: {error}");
    }
    issuer.set(Answer::Huge(MIB, false));
    assert_eq!(client.get(&url).await.unwrap().len(), MIB);
    issuer.set(Answer::Hang);
    assert!(matches!(client.get(&url).await, Err(GetError::Timeout)));
}

#[tokio::test]
async fn the_client_refuses_answers_that_end_early_or_are_not_http() {
    let client = Client::new(trusting(&[]));
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[]}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"key",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{\"key",
        "HTTP/1.1 200 OK\r\nX: 1\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap()), false).unwrap();
        let answering = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(raw.as_bytes()).await.unwrap();
            socket.shutdown().await.unwrap();
        });
        let error = client.get(&url).await.unwrap_err();
        assert!(matches!(error, GetError::Http(_)), "{raw:?}: {error}");
        answering.await.unwrap();
    }
}
