//! A gate with one worker in this process, an upstream that records what reaches it, and raw sockets to both.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::claims::IssuerRules;
use portcullis::enforce::decide::{Enforcer, InForce, TrustedIssuer};
use portcullis::enforce::policy::{IdentitySettings, Mode, Requirement, RouteSettings};
use portcullis::forward::{Address, Scheme, TrustedFields, Upstream, UpstreamSettings};
use portcullis::gate::{
    self, ConnectionCounts, GateLimits, Live, ProxyProtocol, Settings, StreamSettings, WorkersShared,
};
use portcullis::keys::store::KeyStore;
use portcullis::keys::{self, KeySource};
use portcullis::log;
use portcullis::metrics::Metrics;
use portcullis::shutdown::{self, Phase, Trigger};
use portcullis::time::Timestamp;
use portcullis::{enforce, tls};

use testkit::raw_upstream::{Exchange, Next, RawUpstream};
use testkit::tokens::{Signer, compact};
use testkit::wire::{Answer, Wire};
use testkit::{eventually, eventually_async};

pub(crate) use testkit::PATIENCE;
const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for tests";
const ISSUER: &str = "https://issuer.example/";

/// A running gate.
pub(crate) struct Bed {
    pub(crate) address: SocketAddr,
    pub(crate) upstream: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) settings: Settings,
    live: Arc<ArcSwap<Live>>,
    trigger: Trigger,
    worker: Option<JoinHandle<io::Result<()>>>,
    log: LogText,
    guard: Option<log::Guard>,
}

impl Bed {
    /// Starts it with long timeouts and these changes to the settings.
    pub(crate) fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = patient();
        change(&mut settings);
        let upstream = Recorder::start();
        let address = (Scheme::Http, upstream.server.address);
        Self::run(settings, upstream, address)
    }

    /// Starts it in front of an upstream with HTTP/2; nothing is recorded.
    pub(crate) fn before_http2(upstream: SocketAddr) -> Self {
        Self::run(patient(), Recorder::start(), (Scheme::H2c, upstream))
    }

    fn run(settings: Settings, upstream: Recorder, address: (Scheme, SocketAddr)) -> Self {
        let metrics = Metrics::new().unwrap();
        let live = Arc::new(ArcSwap::from_pointee(live(&settings, &routes(), address, &metrics, 0)));
        let (trigger, shutdown) = shutdown::channel();
        let log = LogText::default();
        let log_settings = log::Settings {
            format: log::Format::Json,
            level: "info".into(),
            access_log: true,
            log_paths: false,
        };
        let (access, guard, _) = log::open(&log_settings, &metrics, log.clone()).unwrap();
        let shared = WorkersShared {
            live: Arc::clone(&live),
            metrics: metrics.clone(),
            log: access,
            refusals: log::Refusals::default(),
            shutdown,
            connections: Arc::new(ConnectionCounts::default()),
        };
        let listeners = gate::bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap().pop().unwrap();
        let address = listeners[0].local_addr().unwrap();
        let worker = Some(thread::spawn(move || gate::run_worker(listeners, shared)));
        Self { address, upstream, metrics, settings, live, trigger, worker, log, guard: Some(guard) }
    }

    /// Puts other routes in force.
    pub(crate) fn reload(&self, routes: &[RouteSettings]) {
        self.live.store(Arc::new(live(
            &self.settings,
            routes,
            (Scheme::Http, self.upstream.server.address),
            &self.metrics,
            1,
        )));
    }

    pub(crate) fn advance(&self, phase: Phase) {
        self.trigger.advance(phase);
    }

    /// Waits until the worker has returned.
    pub(crate) fn ended(&mut self) {
        self.worker.take().unwrap().join().unwrap().unwrap();
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::plain(self.address)
    }

    /// The sum of the series on the metrics page with this name and these labels, among others.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let page = self.metrics.render().unwrap();
        let start = series.strip_suffix('}').unwrap_or(series);
        let lines = page.lines().filter(|line| line.starts_with(start));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until this many connections are open.
    pub(crate) fn until_open(&self, connections: u64) {
        self.until(r#"portcullis_connections{listener="public"}"#, connections);
    }

    /// Waits until a metric has this value.
    pub(crate) fn until(&self, series: &str, value: u64) {
        eventually(&format!("{series} is {value}"), || (self.metric(series) == value).then_some(()));
    }

    /// Waits until the listener is closed.
    pub(crate) fn until_closed(&self) {
        eventually("nobody listens", || TcpStream::connect(self.address).err());
    }

    /// All log lines, once the gate has ended.
    pub(crate) fn log(&mut self) -> Vec<serde_json::Value> {
        if self.worker.is_some() {
            self.advance(Phase::Stopped);
            self.ended();
        }
        drop(self.guard.take());
        let text = self.log.0.lock().unwrap();
        text.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.advance(Phase::Stopped);
        if let Some(worker) = self.worker.take() {
            let outcome = worker.join();
            if !thread::panicking() {
                outcome.unwrap().unwrap();
            }
        }
    }
}

#[derive(Clone, Default)]
struct LogText(Arc<Mutex<Vec<u8>>>);

impl Write for LogText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn patient() -> Settings {
    Settings {
        listen: Vec::new(),
        workers: 1,
        drain_timeout: PATIENCE,
        stream_drain_timeout: PATIENCE,
        shutdown_delay: Duration::ZERO,
        trusted_proxies: Vec::new(),
        trusted_fields: TrustedFields::default(),
        proxy_protocol: ProxyProtocol::Off,
        tls: None,
        limits: GateLimits {
            connections: 1000,
            connections_per_ip: None,
            requests: None,
            handshake_timeout: PATIENCE,
            header_timeout: PATIENCE,
            header_bytes: 64 * 1024,
            headers: 100,
            body_bytes: None,
            idle_connection_timeout: PATIENCE,
            http2_streams: 200,
        },
    }
}

/// `/open/…` is anonymous, `/shadow/…` is in shadow mode, `/…` requires the scope `read`.
pub(crate) fn routes() -> Vec<RouteSettings> {
    let read = RouteSettings {
        path: "/{*rest}".into(),
        requirement: Requirement { scopes: vec!["read".into()], ..Requirement::default() },
        ..RouteSettings::default()
    };
    let open = RouteSettings {
        path: "/open/{*rest}".into(),
        requirement: Requirement::default(),
        anonymous: true,
        ..read.clone()
    };
    let shadow = RouteSettings { path: "/shadow/{*rest}".into(), mode: Mode::Shadow, ..read.clone() };
    vec![read, open, shadow]
}

fn live(
    settings: &Settings,
    routes: &[RouteSettings],
    (scheme, upstream): (Scheme, SocketAddr),
    metrics: &Metrics,
    generation: u64,
) -> Live {
    let algorithms = vec![Algorithm::HS256];
    let rules = IssuerRules {
        issuer: ISSUER.into(),
        audiences: vec!["api".into()],
        algorithms: algorithms.clone(),
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(86_400),
        token_types: vec!["JWT".into()],
        required_claims: vec!["sub".into()],
        ..IssuerRules::default()
    };
    let keys = keys::Settings {
        issuer: ISSUER.into(),
        source: KeySource::Secret(SECRET.to_vec()),
        algorithms,
        ca: None,
        insecure_http: false,
        authorization: None,
        for_svids: false,
        refresh_interval: PATIENCE,
        refresh_cooldown: PATIENCE,
        max_stale: PATIENCE,
    };
    let issuer = TrustedIssuer { rules, keys: KeyStore::new(keys, metrics.clone()) };
    let enforced = enforce::Settings {
        routes: routes.to_vec(),
        identity: IdentitySettings::default(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: 1000,
    };
    let upstream = UpstreamSettings {
        name: "recorder".into(),
        scheme,
        addresses: vec![Address::Tcp { host: upstream.ip().to_string(), port: upstream.port() }],
        host: None,
        sni: None,
        max_requests: None,
        connect_timeout: PATIENCE,
        response_timeout: PATIENCE,
        body_timeout: None,
        idle_timeout: PATIENCE,
        ca: None,
        client_certificate: None,
    };
    Live {
        authority: None,
        intake: None,
        resources: Vec::new(),
        streams: StreamSettings { cut_on_revocation: true, check_interval: Duration::from_secs(1) },
        enforcer: Arc::new(Enforcer::new(enforced, vec![issuer], InForce::unlimited(), metrics).unwrap()),
        upstreams: vec![Upstream::load(upstream).unwrap()],
        identity: IdentitySettings::default(),
        settings: settings.clone(),
        tls: settings.tls.as_ref().map(|settings| Arc::new(tls::server_tls(settings, None).unwrap())),
        tracing: None,
        generation,
    }
}

/// A token of `client` with these scopes.
pub(crate) fn token(client: &str, scope: &str) -> String {
    bound_token(client, scope, None)
}

/// Like [`token`], bound to the certificate with this thumbprint.
pub(crate) fn bound_token(client: &str, scope: &str, certificate: Option<&[u8]>) -> String {
    let now = Timestamp::now().as_secs();
    let mut payload = serde_json::json!({
        "iss": ISSUER, "aud": "api", "sub": "somebody", "client_id": client, "scope": scope,
        "iat": now, "exp": now + 600,
    });
    if let Some(thumbprint) = certificate {
        payload["cnf"] = serde_json::json!({ "x5t#S256": testkit::b64(thumbprint) });
    }
    let header = br#"{"alg":"HS256","typ":"JWT"}"#;
    compact(&Signer::secret("HS256", SECRET), "HS256", header, payload.to_string().as_bytes())
}

/// A request to an anonymous route.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET /open{path} HTTP/1.1\r\nHost: gate\r\n\r\n").into_bytes()
}

/// The `error` of a rejection.
pub(crate) fn error_of(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(json["request_id"], answer.field("x-request-id").unwrap());
    json["error"].as_str().unwrap().to_owned()
}

/// Sends as long as the other side accepts data.
pub(crate) fn while_taken(times: usize, mut send: impl FnMut() -> io::Result<()>) {
    for _ in 0..times {
        if send().is_err() {
            return;
        }
    }
}

/// A request as the upstream received it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    /// `None` if the body was incomplete.
    pub(crate) body: Option<Vec<u8>>,
}

/// An upstream that records requests and responds by path.
pub(crate) struct Recorder {
    server: RawUpstream,
    received: Receiver<Received>,
    go: SyncSender<()>,
}

impl Recorder {
    fn start() -> Self {
        let ((report, received), (go, going)) = (sync_channel(10_000), sync_channel(10_000));
        let going = Mutex::new(going);
        let server = RawUpstream::scripted(move |exchange| converse(exchange, &report, &going));
        Self { server, received, go }
    }

    /// Returns the next request that reached it.
    pub(crate) fn seen(&self) -> Received {
        self.received.recv_timeout(PATIENCE).expect("a request at the upstream")
    }

    /// Waits until the heads of this many requests have reached it.
    pub(crate) fn reached(&self, count: usize) {
        drop(self.server.wait_for(count));
    }

    /// Returns the next request that reached it, while other tasks on this thread continue.
    pub(crate) async fn seen_meanwhile(&self) -> Received {
        eventually_async("a request at the upstream", || self.received.try_recv().ok()).await
    }

    /// Whether nothing (else) has reached it.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.received.try_recv(), Err(TryRecvError::Empty))
    }

    /// Lets one waiting response continue.
    pub(crate) fn go(&self) {
        self.go.send(()).unwrap();
    }
}

/// Handles one request.
fn converse(exchange: &mut Exchange<'_>, report: &SyncSender<Received>, going: &Mutex<Receiver<()>>) -> Next {
    if exchange.request.target() == "/open/early" {
        // Before it has read anything.
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        return Next::Close;
    }
    let body = exchange.read_body().ok();
    let (line, fields) = (exchange.request.line(), exchange.request.fields());
    let path = exchange.request.target().trim_start_matches("/open").to_owned();
    let hold = || going.lock().unwrap().recv_timeout(PATIENCE).unwrap();
    if path == "/whole" {
        hold();
    }
    let echo = body.clone();
    if report.send(Received { line, fields, body }).is_err() {
        return Next::Close;
    }
    let Some(echo) = echo else { return Next::Close };
    let ok = |body: &[u8]| {
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    match path.as_str() {
        "/hold" => {
            hold();
            exchange.send(ok(b"held"))
        }
        "/hints" => {
            exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            hold();
            exchange.send(ok(b"hinted"))
        }
        "/hints-at-once" => {
            exchange.send([b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n", &ok(b"hinted")[..]].concat())
        }
        "/chunks" => {
            exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            hold();
            exchange.send("0\r\n\r\n")
        }
        "/cut" => {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            Next::Close
        }
        "/switch" => {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\nhello ",
            );
            while let Ok(bytes) = exchange.read_some() {
                if bytes.is_empty() || exchange.write(bytes.to_ascii_uppercase()).is_err() {
                    break;
                }
            }
            Next::Close
        }
        "/flood" => {
            exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat();
            while_taken(10_000, || exchange.write(&chunk));
            Next::Close
        }
        _ => exchange.send(ok(&echo)),
    }
}
