//! A gate with one worker in this process, an upstream that records what reaches it, and raw sockets towards both.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::claims::{ClaimNames, IssuerRules};
use portcullis::enforce::decide::{Enforcer, InForce, TrustedIssuer};
use portcullis::enforce::policy::{
    ClaimName, EncodedSlashes, IdentitySettings, Mode, Requirement, RouteSettings,
};
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

use testkit::eventually;
use testkit::tokens::{Signer, compact};

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
    log: Log,
    guard: Option<log::Guard>,
}

impl Bed {
    /// With settings that differ from patient ones.
    pub(crate) fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = patient();
        change(&mut settings);
        let upstream = Recorder::start();
        let metrics = Metrics::new().unwrap();
        let live = Arc::new(ArcSwap::from_pointee(live(&settings, &routes(), upstream.address, &metrics, 0)));
        let (trigger, shutdown) = shutdown::channel();
        let log = Log::default();
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
            shutdown,
            connections: Arc::new(ConnectionCounts::default()),
        };
        let listeners = gate::bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap().pop().unwrap();
        let address = listeners[0].local_addr().unwrap();
        let worker = Some(thread::spawn(move || gate::run_worker(listeners, shared)));
        Self { address, upstream, metrics, settings, live, trigger, worker, log, guard: Some(guard) }
    }

    /// Puts other routes into force.
    pub(crate) fn reload(&self, routes: &[RouteSettings]) {
        self.live.store(Arc::new(live(&self.settings, routes, self.upstream.address, &self.metrics, 1)));
    }

    pub(crate) fn advance(&self, phase: Phase) {
        self.trigger.advance(phase);
    }

    /// Waits until the worker has returned.
    pub(crate) fn ended(&mut self) {
        self.worker.take().unwrap().join().unwrap().unwrap();
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address).unwrap())
    }

    /// The sum of the series on the metrics page that have this name, and these labels among others.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let page = self.metrics.render().unwrap();
        let start = series.strip_suffix('}').unwrap_or(series);
        let lines = page.lines().filter(|line| line.starts_with(start));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until so many connections are open.
    pub(crate) fn until_open(&self, connections: u64) {
        self.until(r#"portcullis_connections{listener="public"}"#, connections);
    }

    /// Waits until a metric has this value.
    pub(crate) fn until(&self, series: &str, value: u64) {
        eventually(&format!("{series} is {value}"), || (self.metric(series) == value).then_some(()));
    }

    /// Waits until nobody listens any more.
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
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
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

/// `/open/…` for everybody, `/shadow/…` observed, `/…` with the scope `read`.
pub(crate) fn routes() -> Vec<RouteSettings> {
    let read = RouteSettings {
        path: "/{*rest}".into(),
        hosts: Vec::new(),
        methods: Vec::new(),
        upstream: 0,
        requirement: Requirement { scopes: vec!["read".into()], ..Requirement::default() },
        anonymous: false,
        mode: Mode::Enforce,
        response_timeout: None,
        request_body_timeout: None,
        encoded_slashes: EncodedSlashes::Reject,
        access_log: true,
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
    upstream: SocketAddr,
    metrics: &Metrics,
    generation: u64,
) -> Live {
    let algorithms = vec![Algorithm::HS256];
    let member = |name: &str| ClaimName::Member(name.into());
    let rules = IssuerRules {
        issuer: ISSUER.into(),
        audiences: vec!["api".into()],
        algorithms: algorithms.clone(),
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(86_400),
        token_types: vec!["JWT".into()],
        required_claims: vec!["sub".into()],
        claims: ClaimNames {
            scope: member("scope"),
            roles: member("roles"),
            client: member("client_id"),
            tenant: member("tenant"),
            role_version: member("role_version"),
        },
    };
    let keys = keys::Settings {
        issuer: ISSUER.into(),
        source: KeySource::Secret(SECRET.to_vec()),
        algorithms,
        ca: None,
        insecure_http: false,
        refresh_interval: PATIENCE,
        refresh_cooldown: PATIENCE,
        max_stale: PATIENCE,
    };
    let issuer = TrustedIssuer { rules, keys: KeyStore::new(keys, metrics.clone()) };
    let identity = IdentitySettings::default();
    let enforced = enforce::Settings {
        routes: routes.to_vec(),
        identity: identity.clone(),
        bearer: BearerSettings::default(),
        proofs: 1000,
    };
    let upstream = UpstreamSettings {
        name: "recorder".into(),
        scheme: Scheme::Http,
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
        streams: StreamSettings { cut_on_revocation: true, check_interval: Duration::from_secs(1) },
        enforcer: Arc::new(Enforcer::new(enforced, vec![issuer], InForce::unlimited(), metrics).unwrap()),
        upstreams: vec![Upstream::load(upstream).unwrap()],
        identity,
        settings: settings.clone(),
        tls: settings.tls.as_ref().map(|settings| Arc::new(tls::server_tls(settings, None).unwrap())),
        generation,
    }
}

/// A token of `client` with these scopes.
pub(crate) fn token(client: &str, scope: &str) -> String {
    bound_token(client, scope, None)
}

/// The same, for the holder of the certificate with this thumbprint.
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

/// A request on an open route.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET /open{path} HTTP/1.1\r\nHost: gate\r\n\r\n").into_bytes()
}

/// One end of a raw connection.
pub(crate) struct Wire {
    tcp: TcpStream,
    buffer: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The `error` of a refusal.
    pub(crate) fn error(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(json["request_id"], self.field("x-request-id").unwrap());
        json["error"].as_str().unwrap().to_owned()
    }
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { tcp, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends as long as the other side takes it.
    pub(crate) fn send_while_taken(&mut self, bytes: &[u8], times: usize) {
        for _ in 0..times {
            if self.tcp.write_all(bytes).is_err() {
                return;
            }
        }
    }

    pub(crate) fn close_writing(&self) {
        self.tcp.shutdown(Shutdown::Write).unwrap();
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut scratch = [0; 4096];
        let read = self.tcp.read(&mut scratch)?;
        self.buffer.extend_from_slice(&scratch[..read]);
        Ok(read)
    }

    fn more(&mut self) {
        let read = self.fill().unwrap();
        assert!(read > 0, "the connection ended after {}", self.buffer.escape_ascii());
    }

    /// Takes what comes up to and including `end`.
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.buffer.drain(..at + end.len()).collect();
            }
            self.more();
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            self.more();
        }
        self.buffer.drain(..length).collect()
    }

    /// One head, of a request or a response, as first line and fields.
    pub(crate) fn head(&mut self) -> (String, Vec<(String, String)>) {
        let head = String::from_utf8(self.until(b"\r\n\r\n")).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap().to_owned();
        let fields = lines.map(|line| line.split_once(": ").or_else(|| line.split_once(':')).unwrap());
        (first, fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect())
    }

    /// One body, framed as the fields say; `None` when the connection ends too early.
    fn body(&mut self, fields: &[(String, String)]) -> Option<Vec<u8>> {
        let field =
            |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if field("transfer-encoding") == Some("chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.try_until(b"\r\n")?;
                let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
                let chunk = self.try_exactly(size + 2)?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    return Some(body);
                }
            }
        }
        self.try_exactly(field("content-length").map_or(0, |length| length.parse().unwrap()))
    }

    fn try_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        while !self.buffer.windows(end.len()).any(|window| window == end) {
            if self.fill().unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(self.until(end))
    }

    fn try_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill().unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(self.exactly(length))
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.answer_head();
        answer.body = self.body(&answer.fields).expect("a whole body");
        answer
    }

    /// An answer to `HEAD`, or an interim one.
    pub(crate) fn answer_head(&mut self) -> Answer {
        let (line, fields) = self.head();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, fields, body: Vec::new() }
    }

    /// Whether the other side has ended the connection and sent nothing more.
    pub(crate) fn is_ended(&mut self) -> bool {
        match self.fill() {
            Ok(read) => read == 0 && self.buffer.is_empty(),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                self.buffer.is_empty()
            }
        }
    }
}

/// A request as the upstream got it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    /// `None`: it ended before its end.
    pub(crate) body: Option<Vec<u8>>,
}

/// An upstream that records requests and answers by path.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Receiver<Seen>,
    go: SyncSender<()>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ((report, seen), (go, going)) = (sync_channel(10_000), sync_channel(10_000));
        let going = Arc::new(Mutex::new(going));
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let (report, going, wire) = (report.clone(), Arc::clone(&going), Wire::new(tcp.unwrap()));
                thread::spawn(move || converse(wire, &report, &going));
            }
        });
        Self { address, seen, go }
    }

    /// The next request that reached it.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a request at the upstream")
    }

    /// The next request that reached it, while other tasks of this thread go on.
    pub(crate) async fn seen_meanwhile(&self) -> Seen {
        loop {
            match self.seen.try_recv() {
                Ok(seen) => return seen,
                Err(_none_yet) => tokio::task::yield_now().await,
            }
        }
    }

    /// Nothing (else) has reached it.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.seen.try_recv(), Err(TryRecvError::Empty))
    }

    /// Lets one answer go on that waits.
    pub(crate) fn go(&self) {
        self.go.send(()).unwrap();
    }
}

/// Serves one connection of the gate until it ends or an answer ends it.
fn converse(mut wire: Wire, report: &SyncSender<Seen>, going: &Mutex<Receiver<()>>) {
    while let Some(head) = wire.try_until(b"\r\n\r\n") {
        wire.buffer.splice(..0, head);
        let (line, fields) = wire.head();
        let body = wire.body(&fields);
        let (cut, echo) = (body.is_none(), body.clone().unwrap_or_default());
        let path = line.split(' ').nth(1).unwrap().trim_start_matches("/open").to_owned();
        let hold = || going.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        if path == "/whole" {
            hold();
        }
        if report.send(Seen { line, fields, body }).is_err() || cut {
            return;
        }
        let ok = |body: &[u8]| {
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
        };
        match path.as_str() {
            "/hold" => {
                hold();
                wire.send(ok(b"held"));
            }
            "/hints" => {
                wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
                hold();
                wire.send(ok(b"hinted"));
            }
            "/hints-at-once" => {
                wire.send([b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n", &ok(b"hinted")[..]].concat())
            }
            "/cut" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                return;
            }
            "/switch" => {
                wire.send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\nhello ",
                );
                while let Some(bytes) = wire.try_exactly(1) {
                    wire.send(bytes.to_ascii_uppercase());
                }
                return;
            }
            "/flood" => {
                wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                wire.send_while_taken(&[b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat(), 10_000);
                return;
            }
            _ => wire.send(ok(&echo)),
        }
    }
}
