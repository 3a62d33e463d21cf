//! Mixed traffic for long, while the configuration is reloaded, keys rotate, events come and Redis is restarted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::app::{empty, full};
use testkit::gate::Gate;
use testkit::h2_client::{self, H2Client};
use testkit::issuer::{KeyServer, Source};
use testkit::log::field;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer, unique};
use testkit::{let_pass_async, now, now_ms};
use tokio::task::{LocalSet, spawn_local};

use crate::client::{Client, connector, request};
use crate::figures::{Figures, slope};
use crate::upstream;

const RELOADS: Duration = Duration::from_secs(7);
const EVENTS: Duration = Duration::from_secs(10);
const ROTATIONS: Duration = Duration::from_secs(20);
const OUTAGES: Duration = Duration::from_secs(40);
/// How long tokens of the key before are still good after a rotation.
const OVERLAP: Duration = Duration::from_secs(8);
/// Refusals that a gate keeps for operators.
const REFUSALS: usize = 1_000;
/// How long after Redis is back what it was missing for may show: `state.max_staleness` and a margin.
const AFTERMATH: i64 = 15_000;

/// A status that is no 2xx: when, and of which request.
struct Failure {
    at: i64,
    status: u16,
    request_id: String,
    what: String,
}

/// What clients and disturbances share.
struct Stage {
    issuer: Mutex<Issuer>,
    /// Changes with the key that signs.
    key: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    good: AtomicUsize,
    stop: AtomicBool,
    /// When Redis was down, from and to.
    outages: Mutex<Vec<(i64, i64)>>,
    /// Requests with the token of a subject that was revoked just before.
    victims: Mutex<Vec<(String, u16)>>,
}

impl Stage {
    fn token(&self, subject: &str) -> String {
        let issuer = self.issuer.lock().unwrap();
        issuer.token().claim("sub", subject).claim("jti", unique()).claim("exp", now() + 110).build()
    }

    fn saw(&self, status: u16, request_id: &str, what: &str) {
        if (200..300).contains(&status) || status == 101 {
            self.good.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (request_id, what) = (request_id.to_owned(), what.to_owned());
        self.failures.lock().unwrap().push(Failure { at: now_ms(), status, request_id, what });
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A token that is made anew when it ages, or when another key signs.
struct Fresh<'a> {
    stage: &'a Stage,
    key: usize,
    made: Instant,
    token: String,
}

impl<'a> Fresh<'a> {
    fn new(stage: &'a Stage) -> Self {
        let (key, made) = (stage.key.load(Ordering::Relaxed), Instant::now());
        Self { stage, key, made, token: stage.token("alice") }
    }

    fn get(&mut self) -> &str {
        if self.made.elapsed() > Duration::from_secs(20) || self.key != self.stage.key.load(Ordering::Relaxed)
        {
            *self = Self::new(self.stage);
        }
        &self.token
    }
}

/// Runs it for so many seconds, of which a third warms up.
pub fn run(seconds: u64) -> Figures {
    let mut figures = Figures::default();
    let (address, mut redis) = (upstream::start(None), RedisServer::start());
    let issuer = Issuer::new();
    let keys = KeyServer::start(issuer.jwks());
    let settings = settings(&format!("http://{address}"), &issuer, &keys, &redis);
    let gate = Gate::start(&settings);
    let stage = Stage {
        issuer: Mutex::new(issuer),
        key: AtomicUsize::new(0),
        failures: Mutex::default(),
        good: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        outages: Mutex::default(),
        victims: Mutex::default(),
    };
    // A gate keeps its latest refusals: the ring is full from now on, as it is of one that has run for long.
    for _ in 0..REFUSALS {
        assert_eq!(gate.get("/small").send().status(), 401);
    }
    let mut counts = BTreeMap::new();
    let total = Duration::from_secs(seconds.max(30));
    phase(&gate, &stage, (&keys, &mut redis), total / 3, &mut counts);
    let resting = at_rest(&gate);
    let points = phase(&gate, &stage, (&keys, &mut redis), total - total / 3, &mut counts);
    let mut left = at_rest(&gate);
    for _ in 0..30 {
        if left == resting {
            break;
        }
        testkit::let_pass(Duration::from_secs(1));
        left = gate.descriptors();
    }
    for (name, count) in counts {
        figures.note(name, count);
    }
    figures.note("requests that passed", stage.good.load(Ordering::Relaxed));
    let growth = slope(&points) * 3600.0 / 1024.0;
    // A gate removes old events every ten minutes, so after a shorter warm-up its tables still fill.
    let is_long = seconds >= 1800;
    figures.note(
        "memory after the warm-up",
        format!("{:.1} MiB", points.first().map_or(0.0, |point| point.1) / 1024.0),
    );
    figures
        .note("memory at the end", format!("{:.1} MiB", points.last().map_or(0.0, |point| point.1) / 1024.0));
    figures.add(
        "memory slope",
        format!("{growth:.2} MiB/h"),
        if is_long { "<= 1 MB/h" } else { "(only from 30 minutes on)" },
        !is_long || growth <= 0.95,
    );
    figures.add(
        "descriptors at rest",
        format!("{left}"),
        &format!("{resting}, as after the warm-up"),
        left == resting,
    );
    explain(&mut figures, &gate, &stage);
    figures
}

fn settings(url: &str, issuer: &Issuer, keys: &KeyServer, redis: &RedisServer) -> Settings {
    let lines =
        "refresh_cooldown = \"200ms\"\nrefresh_interval = \"30s\"\nleeway = \"2s\"\nmax_lifetime = \"2m\"";
    Settings::tls()
        .server("workers = 2")
        .upstream("api", url, "idle_timeout = \"2s\"")
        .issuer_from(issuer, &Source::Url(keys.jwks_url()), lines)
        .route("/{*rest}", "access_log = false")
        .admin()
        .toml("[sessions]\nidle_timeout = \"1m\"")
        .toml(&format!("[state]\nstore = \"redis\"\nurl = \"{}\"\non_empty = \"trust\"", redis.url()))
}

/// Traffic and disturbances for so long; the memory of the gate, as seconds and KiB.
fn phase(
    gate: &Gate,
    stage: &Stage,
    (keys, redis): (&KeyServer, &mut RedisServer),
    length: Duration,
    counts: &mut BTreeMap<&'static str, usize>,
) -> Vec<(f64, f64)> {
    stage.stop.store(false, Ordering::Relaxed);
    let mut points = Vec::new();
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(LocalSet::new().run_until(traffic(gate, stage)));
        });
        let began = Instant::now();
        let (mut reloads, mut events, mut rotations, mut outages) = (began, began, began, began);
        let mut retires = None;
        let is_due = |last: &mut Instant, every: Duration| {
            let due = last.elapsed() >= every;
            if due {
                *last = Instant::now();
            }
            due
        };
        while began.elapsed() < length && !traffic.is_finished() {
            points.push((began.elapsed().as_secs_f64(), gate.memory("VmRSS") as f64));
            testkit::let_pass(Duration::from_secs(1));
            if is_due(&mut reloads, RELOADS) {
                gate.signal("HUP");
                *counts.entry("reloads").or_default() += 1;
            }
            if is_due(&mut events, EVENTS) {
                revoke(gate, stage);
                *counts.entry("subjects revoked").or_default() += 1;
            }
            if is_due(&mut rotations, ROTATIONS) {
                rotate(stage, keys);
                retires = Some(Instant::now() + OVERLAP);
                *counts.entry("key rotations").or_default() += 1;
            }
            if retires.is_some_and(|at| Instant::now() >= at) {
                retires = None;
                retire(stage, keys);
            }
            if is_due(&mut outages, OUTAGES) {
                let from = now_ms();
                redis.kill();
                testkit::let_pass(Duration::from_millis(500));
                redis.start_again();
                stage.outages.lock().unwrap().push((from, now_ms()));
                *counts.entry("Redis restarts").or_default() += 1;
            }
        }
        if retires.is_some() {
            retire(stage, keys);
        }
        stage.stop.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
    });
    points
}

/// Publishes another key and then signs with it.
fn rotate(stage: &Stage, keys: &KeyServer) {
    let mut issuer = stage.issuer.lock().unwrap();
    issuer.signers.push(Signer::new("ES256", &unique()));
    keys.set_keys(issuer.jwks());
    issuer.signers.swap(0, 1);
    stage.key.fetch_add(1, Ordering::Relaxed);
}

/// Publishes the key that signs alone.
fn retire(stage: &Stage, keys: &KeyServer) {
    let mut issuer = stage.issuer.lock().unwrap();
    issuer.signers.truncate(1);
    keys.set_keys(issuer.jwks());
}

/// Revokes a subject whose token has just been used.
fn revoke(gate: &Gate, stage: &Stage) {
    let subject = unique();
    let token = stage.token(&subject);
    let first = gate.get("/small").token(&token).send();
    stage.saw(first.status(), first.field("x-request-id").unwrap_or_default(), "the victim's first request");
    let event = json!({"type": "subject-revoked", "issuer": "https://idp.example.com/", "subject": subject});
    let answer = gate.operate("POST", "/v1/events", Some(&event));
    if answer.status() != 202 {
        stage.saw(answer.status(), "", "POST /v1/events");
        return;
    }
    let second = gate.get("/small").token(&token).send();
    let request_id = second.field("x-request-id").unwrap_or_default().to_owned();
    stage.victims.lock().unwrap().push((request_id, second.status()));
}

async fn traffic(gate: &Gate, stage: &Stage) {
    let tls = connector(&gate.settings);
    let over_http1 = async |pause: u64, target: &str, body: usize| {
        let (mut client, mut fresh, mut number) = (None, Fresh::new(stage), 0);
        while !stage.is_over() {
            let_pass_async(Duration::from_millis(pause)).await;
            number += 1;
            let method = if body > 0 { "POST" } else { "GET" };
            let bytes = request(method, target, fresh.get(), &vec![b'x'; body]);
            let exchange = async {
                let mut open = match client.take().filter(|_| number % 100 != 0) {
                    Some(open) => open,
                    None => Client::tls(gate.public, &tls).await?,
                };
                let reply = open.exchange(&bytes).await?;
                Ok::<_, std::io::Error>((open, reply))
            };
            match exchange.await {
                Ok((open, reply)) => {
                    stage.saw(reply.status, &reply.request_id, target);
                    client = Some(open).filter(|_| !reply.closes);
                }
                Err(error) => stage.saw(0, "", &format!("{target}: {error}")),
            }
        }
    };
    let over_http2 = async |pause: u64, body: usize| {
        let (mut client, mut fresh, mut number) = (H2Client::connect(gate).await, Fresh::new(stage), 0);
        while !stage.is_over() {
            let_pass_async(Duration::from_millis(pause)).await;
            number += 1;
            if number % 500 == 0 {
                client = H2Client::connect(gate).await;
            }
            let (method, content) =
                if body > 0 { ("POST", full(vec![b'x'; body])) } else { ("GET", empty()) };
            match client.exchange(h2_client::request(method, "/h2", fresh.get(), content)).await {
                Ok(answer) => {
                    let id = answer.head.headers.get("x-request-id").and_then(|id| id.to_str().ok());
                    stage.saw(answer.status(), id.unwrap_or_default(), "/h2");
                }
                Err(error) => {
                    stage.saw(0, "", &format!("/h2: {error}"));
                    client = H2Client::connect(gate).await;
                }
            }
        }
    };
    let tunnels = async || {
        let mut fresh = Fresh::new(stage);
        while !stage.is_over() {
            let text = format!(
                "GET /chat HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
                fresh.get()
            );
            let carried = async {
                let mut client = Client::tls(gate.public, &tls).await?;
                let reply = client.exchange(text.as_bytes()).await?;
                for _ in 0..if reply.status == 101 { 10 } else { 0 } {
                    client.echo(&[b'x'; 500]).await?;
                    let_pass_async(Duration::from_millis(100)).await;
                }
                Ok::<_, std::io::Error>(reply)
            };
            match carried.await {
                Ok(reply) => stage.saw(reply.status, &reply.request_id, "/chat"),
                Err(error) => stage.saw(0, "", &format!("/chat: {error}")),
            }
        }
    };
    tokio::join!(
        over_http1(20, "/small", 0),
        over_http1(25, "/small", 0),
        over_http1(50, "/echo", 10_000),
        over_http1(200, "/big/1024", 0),
        over_http1(500, "/events", 0),
        over_http1(500, "/events", 0),
        over_http2(20, 0),
        over_http2(50, 20_000),
        tunnels(),
    );
    // What was spawned for HTTP/2 ends with its connection.
    drop(spawn_local(async {}).await);
}

/// Descriptors once no client is connected and the connections to the upstream have expired.
fn at_rest(gate: &Gate) -> usize {
    gate.wait_for_metric("no client is connected", |metrics| {
        (metrics.sum("portcullis_connections", &[("listener", "public")]) < 0.5).then_some(())
    });
    testkit::let_pass(Duration::from_secs(6));
    gate.descriptors()
}

/// Counts failures by status and reason, and says which of them nothing explains.
fn explain(figures: &mut Figures, gate: &Gate, stage: &Stage) {
    let records = gate.log().records();
    let reasons: BTreeMap<&str, &str> = records
        .iter()
        .filter_map(|record: &Value| Some((field(record, "request_id")?, field(record, "reason")?)))
        .collect();
    let outages = stage.outages.lock().unwrap();
    let mut by_kind: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for Failure { at, status, request_id, what } in stage.failures.lock().unwrap().iter() {
        let reason = reasons.get(request_id.as_str()).copied().unwrap_or("none");
        let during = outages.iter().any(|(from, to)| (*from..to + AFTERMATH).contains(at));
        // Redis is missing: what depends on it is unavailable, and streams that last are cut.
        let is_explained =
            during && (*status == 503 && (reason == "state_unavailable" || what == "POST /v1/events"));
        let name = if *status == 0 { what.clone() } else { format!("{status} {reason}") };
        *by_kind.entry((name, is_explained)).or_default() += 1;
    }
    let victims = stage.victims.lock().unwrap();
    let refused = victims
        .iter()
        .filter(|(id, status)| *status == 401 && reasons.get(id.as_str()) == Some(&"subject_revoked"));
    let refused = refused.count();
    figures.add(
        "401 subject_revoked, of revoked subjects",
        refused,
        "each of them",
        refused == victims.len(),
    );
    for ((name, is_explained), count) in by_kind {
        figures.add(&name, count, if is_explained { "Redis was down" } else { "unexplained" }, is_explained);
    }
}
