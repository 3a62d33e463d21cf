//! Thousands of connections that stop: in the TLS handshake, in a head, in a body, or before they read the response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use testkit::gate::Gate;
use testkit::let_pass_async;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::{Carrier, Client, connector, request};
use crate::figures::{Figures, ms, p99};
use crate::upstream;

/// Every timeout of the gate towards clients: longer than it takes to open all connections.
const TIMEOUT: Duration = Duration::from_secs(90);
/// What a connection may take in all until it is closed, beyond its timeout.
const FAREWELLS: Duration = Duration::from_secs(45);
/// Requests of the good client, one after the other.
const GOOD: usize = 1000;
/// New connections that good clients open meanwhile.
const NEW: usize = 50;
/// The 99th percentile may rise to this without comment: it is what a busy machine does by itself.
const NOISE: Duration = Duration::from_millis(2);

const KINDS: [&str; 4] = ["TLS handshake", "head", "body", "never reads"];

/// Runs it with so many connections, or as many as the limit on open files allows.
pub fn run(wanted: usize) -> Figures {
    let mut figures = Figures::default();
    let count = wanted.min(open_files() / 2 - 300) / KINDS.len() * KINDS.len();
    let bounded = if count < wanted { " (limit on open files)" } else { "" };
    figures.note("connections that stop", format!("{count}{bounded}"));
    let (gate, issuer) = gate(count + 1 + NEW);
    let token = issuer.good();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(stop(&mut figures, &gate, &token, count));
    figures
}

fn gate(connections: usize) -> (Gate, Issuer) {
    let address = upstream::start(None);
    let (issuer, limit) = (Issuer::new(), TIMEOUT.as_secs());
    let settings = Settings::tls()
        .server("workers = 2")
        .limits(&format!(
            "connections = {connections}\nhandshake_timeout = \"{limit}s\"\nheader_timeout = \"{limit}s\"\n\
             idle_connection_timeout = \"{limit}s\""
        ))
        .upstream("api", &format!("http://{address}"), "response_timeout = \"10m\"")
        .issuer(&issuer)
        .route("/{*rest}", &format!("request_body_timeout = \"{limit}s\"\naccess_log = false"))
        .admin();
    (Gate::start(&settings), issuer)
}

async fn stop(figures: &mut Figures, gate: &Gate, token: &str, count: usize) {
    let tls = connector(&gate.settings);
    let mut good = Client::tls(gate.public, &tls).await.unwrap();
    let bytes = request("GET", "/", token, b"");
    drop(measured(&mut good, &bytes).await);
    let mut before = measured(&mut good, &bytes).await;
    let (resting, p99_before) = (gate.memory("VmRSS"), p99(&mut before));

    let began = Instant::now();
    let (mut stopped, mut memory) = (Vec::with_capacity(count), resting);
    for (kind, name) in KINDS.into_iter().enumerate() {
        let of_a_kind = count / KINDS.len();
        stopped.extend(open(gate.public, &tls, token, (kind, of_a_kind)).await);
        settle(gate).await;
        let now = gate.memory("VmRSS");
        let each = now.saturating_sub(memory) as f64 / of_a_kind as f64;
        figures.note(&format!("memory of each: {name}"), format!("{each:.1} KiB"));
        memory = now;
    }
    let took = began.elapsed();
    figures.add(
        "time to open them",
        format!("{} s", took.as_secs()),
        "within the timeouts",
        took < TIMEOUT / 2,
    );
    let open = connections(gate);
    figures.add("open at a time", open, "all, and the good client", open == count + 1);
    let each = memory.saturating_sub(resting) as f64 / count as f64;
    figures.add("memory of each, of all kinds", format!("{each:.1} KiB"), "<= 40 KiB", each <= 40.0);

    let mut during = measured(&mut good, &bytes).await;
    let p99_during = p99(&mut during);
    figures.note("a good client's p99 without them", ms(p99_before));
    figures.add(
        "a good client's p99 with them",
        ms(p99_during),
        "<= 2 x, or 2 ms",
        p99_during <= (p99_before * 2).max(NOISE),
    );
    let mut new = Vec::new();
    for _ in 0..NEW {
        if let Ok(mut client) = Client::tls(gate.public, &tls).await
            && client.exchange(&bytes).await.is_ok_and(|reply| reply.status == 200)
        {
            new.push(client);
        }
    }
    figures.add("new connections up to the limit", new.len(), "all 50 are served", new.len() == NEW);
    let above = timeout(Duration::from_secs(10), Client::tls(gate.public, &tls)).await;
    figures.add(
        "one above the limit",
        if matches!(above, Ok(Err(_))) { "closed" } else { "open" },
        "closed at once",
        matches!(above, Ok(Err(_))),
    );
    drop(new);

    let deadline = took + TIMEOUT + FAREWELLS;
    let mut left = connections(gate);
    // The good client may be reaped as well: it is idle from now on.
    while left > 1 && began.elapsed() < deadline {
        let_pass_async(Duration::from_millis(500)).await;
        left = connections(gate);
    }
    figures.add("left after the timeouts", left.saturating_sub(1), "none", left <= 1);
    figures.note("the last was gone after", format!("{} s", began.elapsed().as_secs()));
    drop(stopped);
    let served = timeout(Duration::from_secs(10), async {
        Client::tls(gate.public, &tls).await?.exchange(&bytes).await
    });
    let is_served = matches!(served.await, Ok(Ok(reply)) if reply.status == 200);
    figures.add(
        "a new client afterwards",
        if is_served { "served" } else { "not served" },
        "served",
        is_served,
    );
}

/// Opens so many of a kind and keeps them.
async fn open(
    address: SocketAddr,
    tls: &TlsConnector,
    token: &str,
    (kind, count): (usize, usize),
) -> Vec<Box<dyn Carrier>> {
    let at_once = Arc::new(Semaphore::new(64));
    let (mut opening, token) = (JoinSet::new(), Arc::<str>::from(token));
    for _ in 0..count {
        let (at_once, tls, token) = (Arc::clone(&at_once), tls.clone(), Arc::clone(&token));
        opening.spawn(async move {
            let _turn = at_once.acquire().await.unwrap();
            open_one(address, &tls, &token, kind)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", KINDS[kind]))
        });
    }
    opening.join_all().await
}

async fn open_one(
    address: SocketAddr,
    tls: &TlsConnector,
    token: &str,
    kind: usize,
) -> std::io::Result<Box<dyn Carrier>> {
    if kind == 0 {
        let mut socket = TcpStream::connect(address).await?;
        // The begin of a ClientHello.
        socket.write_all(&[0x16, 3, 1, 2, 0, 1]).await?;
        return Ok(Box::new(socket));
    }
    let socket = TcpSocket::new_v4()?;
    // The kernel holds little for a client that does not read.
    socket.set_recv_buffer_size(8192)?;
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    let mut stream = tls.connect(name, socket.connect(address).await?).await?;
    let bytes = match kind {
        1 => b"GET / HTTP/1.1\r\nHost: api.test\r\nX-Never-Ending: ".to_vec(),
        2 => {
            let whole = request("POST", "/", token, &[b'x'; 1000]);
            whole[..whole.len() - 900].to_vec()
        }
        _ => request("GET", "/big/16384", token, b""),
    };
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(Box::new(stream))
}

/// How long each of the good client's requests took.
async fn measured(client: &mut Client, bytes: &[u8]) -> Vec<Duration> {
    let mut times = Vec::with_capacity(GOOD);
    for _ in 0..GOOD {
        let began = Instant::now();
        assert_eq!(client.exchange(bytes).await.unwrap().status, 200);
        times.push(began.elapsed());
        let_pass_async(Duration::from_millis(2)).await;
    }
    times
}

/// Waits until the gate works no more on what was just opened, for a while.
async fn settle(gate: &Gate) {
    let cpu = || gate.metrics().sum("process_cpu_seconds_total", &[]);
    let mut before = cpu();
    for _ in 0..20 {
        let_pass_async(Duration::from_secs(1)).await;
        let now = cpu();
        if now - before < 0.1 {
            return;
        }
        before = now;
    }
}

fn connections(gate: &Gate) -> usize {
    let open = gate.metrics().sum("portcullis_connections", &[("listener", "public")]);
    open as usize
}

/// How many files this process, and so the gate, may have open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}
