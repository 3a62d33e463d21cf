//! A thousand signals a second beside a good client; and how long after a signal's arrival its token is refused, by one
//! gate and by three that share their state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::gate::Gate;
use testkit::ports::ClaimedPort;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, unique};
use testkit::{let_pass, let_pass_async, now};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;

use crate::client::{Client, connector, request};
use crate::figures::{Figures, ms, p99};
use crate::upstream;

/// Signals a second.
const RATE: u64 = 1_000;
/// Connections that they come over.
const SENDERS: u64 = 20;
/// Signals that are timed until the refusal.
const TIMED: usize = 300;
/// The 99th percentile may rise by this without comment: it is what two busy processes on a small machine do to each other.
const NOISE: Duration = Duration::from_millis(1);
const EMBEDDED: &str = "path = \"state.db\"\non_empty = \"trust\"";
const AUDIENCE: &str = "https://gate.example.com";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// Runs it for so many seconds.
pub fn run(seconds: u64) -> Figures {
    let mut figures = Figures::default();
    let length = Duration::from_secs(seconds.max(3));
    load(&mut figures, length, None);
    load(&mut figures, length, Some(ClaimedPort::new().address));
    let scene = Scene::new();
    let gate = Gate::start(&scene.settings("", EMBEDDED));
    refused_after(&mut figures, &scene, &[gate], "one gate");
    let redis = RedisServer::start();
    let state = format!("store = \"redis\"\nurl = \"{}\"\non_empty = \"trust\"", redis.url());
    let gates: Vec<Gate> = (0..3).map(|_| Gate::start(&scene.settings("", &state))).collect();
    refused_after(&mut figures, &scene, &gates, "three gates, one Redis");
    figures
}

/// An upstream, an issuer, and a transmitter that speaks of its subjects.
struct Scene {
    upstream: String,
    issuer: Issuer,
    transmitter: Issuer,
}

impl Scene {
    fn new() -> Self {
        let upstream = format!("http://{}", upstream::start(None));
        Self {
            upstream,
            issuer: Issuer::new(),
            transmitter: Issuer::named("https://transmitter.example.com/"),
        }
    }

    fn settings(&self, signals: &str, state: &str) -> Settings {
        let settings = Settings::tls()
            .server("workers = 2")
            .upstream("api", &self.upstream, "")
            .issuer(&self.issuer)
            .route("/{*rest}", "access_log = false")
            .admin();
        let keys = settings.file("transmitter.json", self.transmitter.jwks().to_string());
        settings.toml(&format!(
            "[state]\n{state}\n[signals]\nrequests_per_sender = 100000\n{signals}\n[[event_transmitters]]\n\
             name = \"idp\"\nissuer = \"https://transmitter.example.com/\"\naudience = \"{AUDIENCE}\"\n\
             jwks_file = {:?}\nsubject_issuer = {:?}\n",
            keys.display().to_string(),
            self.issuer.name,
        ))
    }

    /// A signal that ends the tokens of a subject, as it is pushed.
    fn push(&self, subject: &str) -> Vec<u8> {
        let claims = self.transmitter.token().head("typ", "secevent+jwt").claim("aud", AUDIENCE);
        let claims = claims.claim("jti", unique()).claim("iat", now());
        let claims = claims.claim("sub_id", json!({"format": "opaque", "id": subject}));
        let claims = claims.claim("events", json!({SESSION_REVOKED: {}})).without("exp").without("sub");
        let token = claims.without("nbf").build();
        let head = format!(
            "POST /signals/ssf/idp HTTP/1.1\r\nHost: api.test\r\nContent-Type: application/secevent+jwt\r\n\
             Content-Length: {}\r\n\r\n",
            token.len()
        );
        [head.as_bytes(), token.as_bytes()].concat()
    }
}

/// The good client's times without signals and with them, which arrive at the public listener or at one of their own.
fn load(figures: &mut Figures, length: Duration, own: Option<SocketAddr>) {
    let scene = Arc::new(Scene::new());
    let listen = own.map_or_else(String::new, |address| format!("listen = \"{address}\""));
    let of =
        |name: &str| format!("{name} ({})", if own.is_some() { "own listener" } else { "public listener" });
    let gate = Gate::start(&scene.settings(&listen, EMBEDDED));
    let bytes = request("GET", "/", &scene.issuer.good(), b"");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tls = connector(&gate.settings);
    let alone = runtime.block_on(good(&gate, &tls, &bytes, length));
    let (with, sent) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(LocalSet::new().run_until(flood(&gate, own, Arc::clone(&scene), length)))
        });
        let with = runtime.block_on(good(&gate, &tls, &bytes, length));
        (with, sender.join().unwrap())
    });
    let rate = sent as f64 / length.as_secs_f64();
    figures.add(&of("signals accepted a second"), format!("{rate:.0}"), ">= 950", rate >= 950.0);
    let [mut alone, mut with] = [alone, with];
    let (alone, with) = (p99(&mut alone), p99(&mut with));
    figures.note(&of("a good client's p99 without them"), ms(alone));
    figures.note(&of("ratio of both"), format!("{:.2}", with.as_secs_f64() / alone.as_secs_f64()));
    let is_kept = with <= (alone * 6 / 5).max(alone + NOISE);
    figures.add(&of("a good client's p99 with them"), ms(with), "<= 1.2 x, or 1 ms more", is_kept);
    let told = || gate.metrics().sum("portcullis_signals_total", &[]);
    for _ in 0..60 {
        if told() >= sent as f64 {
            break;
        }
        let_pass(Duration::from_secs(1));
    }
    let missing = sent as f64 - told();
    figures.add(&of("signals without a line of their own"), format!("{missing:.0}"), "none", missing < 0.5);
}

async fn good(gate: &Gate, tls: &TlsConnector, bytes: &[u8], length: Duration) -> Vec<Duration> {
    let mut client = Client::tls(gate.public, tls).await.unwrap();
    let (end, mut times) = (Instant::now() + length, Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        assert_eq!(client.exchange(bytes).await.unwrap().status, 200);
        times.push(began.elapsed());
        let_pass_async(Duration::from_millis(2)).await;
    }
    times
}

/// Sends signals at the rate, and answers how many were accepted.
async fn flood(gate: &Gate, own: Option<SocketAddr>, scene: Arc<Scene>, length: Duration) -> usize {
    let tls = connector(&gate.settings);
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (public, tls, scene) = (gate.public, tls.clone(), Arc::clone(&scene));
            spawn_local(async move {
                let mut client = match own {
                    Some(address) => Client::plain(address).await.unwrap(),
                    None => Client::tls(public, &tls).await.unwrap(),
                };
                let mut ticks = interval(Duration::from_micros(1_000_000 * SENDERS / RATE));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let (end, mut accepted) = (Instant::now() + length, 0);
                while Instant::now() < end {
                    ticks.tick().await;
                    let reply = client.exchange(&scene.push(&unique())).await.unwrap();
                    accepted += usize::from(reply.status == 202);
                }
                accepted
            })
        })
        .collect();
    let mut accepted = 0;
    for sender in senders {
        accepted += sender.await.unwrap();
    }
    accepted
}

/// How long after a signal was sent to the first gate all of them refuse the token that it ends.
fn refused_after(figures: &mut Figures, scene: &Scene, gates: &[Gate], name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut times = runtime.block_on(async {
        let mut clients = Vec::new();
        for gate in gates {
            clients.push(Client::tls(gate.public, &connector(&gate.settings)).await.unwrap());
        }
        let mut sender = Client::tls(gates[0].public, &connector(&gates[0].settings)).await.unwrap();
        let mut times = Vec::new();
        for _ in 0..TIMED {
            let subject = unique();
            let token = scene.issuer.token().claim("sub", subject.as_str()).claim("jti", unique()).build();
            let bytes = request("GET", "/", &token, b"");
            for client in &mut clients {
                assert_eq!(client.exchange(&bytes).await.unwrap().status, 200);
            }
            let push = scene.push(&subject);
            let began = Instant::now();
            assert_eq!(sender.exchange(&push).await.unwrap().status, 202);
            for client in &mut clients {
                while client.exchange(&bytes).await.unwrap().status != 401 {}
            }
            times.push(began.elapsed());
        }
        times
    });
    let worst = p99(&mut times);
    times.sort_unstable();
    figures.note(&format!("from a signal to the refusal, median ({name})"), ms(times[times.len() / 2]));
    let is_kept = worst <= Duration::from_secs(1);
    figures.add(&format!("from a signal to the refusal, p99 ({name})"), ms(worst), "<= 1 s", is_kept);
}
