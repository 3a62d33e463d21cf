//! Twice what an upstream can serve, with a limit on requests in flight and without.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::gate::Gate;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::{Client, request};
use crate::figures::{Figures, ms, p99};
use crate::upstream::{self, Capacity};

/// What the upstream works on at a time …
const SLOTS: usize = 16;
/// … for so long each: 400 a second.
const SERVICE: Duration = Duration::from_millis(40);
/// A few more than the slots, so that the next request is there when one ends.
const LIMIT: usize = SLOTS + 4;
/// A client gives up after this: what comes later is no goodput.
const PATIENCE: Duration = Duration::from_secs(1);

/// What clients saw.
#[derive(Default)]
struct Seen {
    good: RefCell<Vec<Duration>>,
    shed: RefCell<Vec<Duration>>,
    unasked: Cell<usize>,
    late: Cell<usize>,
    other: Cell<usize>,
}

/// Runs it with the limit and without; each phase lasts `seconds`.
pub fn run(seconds: u64) -> Figures {
    let mut figures = Figures::default();
    let length = Duration::from_secs(seconds.max(3));
    figures.note("capacity of the upstream", format!("{} / s", SLOTS * 25));
    scene(&mut figures, Some(LIMIT), length);
    scene(&mut figures, None, length);
    figures
}

fn scene(figures: &mut Figures, limit: Option<usize>, length: Duration) {
    let address =
        upstream::start(Some(Capacity { slots: Arc::new(Semaphore::new(SLOTS)), service: SERVICE }));
    let issuer = Issuer::new();
    let lines = format!("max_requests = {}\nresponse_timeout = \"30s\"", limit.unwrap_or(0));
    let settings = Settings::plaintext()
        .server("workers = 2")
        .upstream("api", &format!("http://{address}"), &lines)
        .issuer(&issuer)
        .route("/{*rest}", "access_log = false")
        .admin();
    let gate = Gate::start(&settings);
    let (bytes, public) = (request("GET", "/", &issuer.good(), b""), gate.public);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let of = |name: &str| format!("{name} ({})", if limit.is_some() { "limit" } else { "no limit" });
    let bounded = limit.is_some();

    let calm = runtime.block_on(LocalSet::new().run_until(closed(public, &bytes, length)));
    let peak = rate(&calm, length);
    let mut calm_times = calm.good.borrow().clone();
    let calm_p99 = p99(&mut calm_times);
    figures.note(&of("peak goodput"), format!("{peak:.0} / s"));
    figures.note(&of("p99 at the peak"), ms(calm_p99));

    let over = AtomicBool::new(false);
    let (stormy, operators) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch_operators(&gate, &over));
        let arrivals = f64::from(u32::try_from(SLOTS).unwrap()) / SERVICE.as_secs_f64() * 2.0;
        let seen = runtime.block_on(LocalSet::new().run_until(open(public, &bytes, arrivals, length)));
        over.store(true, Ordering::Relaxed);
        (seen, watching.join().unwrap())
    });
    let goodput = rate(&stormy, length);
    let share = goodput / peak * 100.0;
    figures.add(
        &of("goodput at twice the capacity"),
        format!("{goodput:.0} / s, {share:.0} %"),
        if bounded { ">= 90 % of the peak" } else { "" },
        !bounded || share >= 90.0,
    );
    let (mut good, mut shed) = (stormy.good.borrow().clone(), stormy.shed.borrow().clone());
    figures.note(&of("p99 of what passed"), ms(p99(&mut good)));
    figures.note(&of("shed with 503 and Retry-After"), shed.len());
    let shed_p99 = p99(&mut shed);
    figures.add(
        &of("p99 of a 503"),
        ms(shed_p99),
        if bounded { "< the service time" } else { "" },
        !bounded || shed_p99 < SERVICE,
    );
    let others = (stormy.unasked.get(), stormy.late.get(), stormy.other.get());
    figures.add(
        &of("503 without Retry-After, late, other"),
        format!("{}, {}, {}", others.0, others.1, others.2),
        if bounded { "none" } else { "" },
        !bounded || others == (0, 0, 0),
    );
    figures.add(
        &of("slowest of /metrics, /ready, admin API"),
        ms(operators),
        "each answers 200",
        operators < Duration::from_secs(5),
    );
    let recovered = recovery(&runtime, public, &bytes, peak, calm_p99);
    figures.add(
        &of("goodput and latency are back after"),
        recovered.map_or("> 30 s".to_owned(), |seconds| format!("{seconds} s")),
        if bounded { "<= 5 s" } else { "" },
        !bounded || recovered.is_some_and(|seconds| seconds <= 5),
    );
}

fn rate(seen: &Seen, length: Duration) -> f64 {
    seen.good.borrow().len() as f64 / length.as_secs_f64()
}

/// As many clients as the limit allows, each with one request after the other.
async fn closed(address: SocketAddr, bytes: &[u8], length: Duration) -> Rc<Seen> {
    let (seen, end) = (Rc::new(Seen::default()), Instant::now() + length);
    let clients: Vec<_> = (0..LIMIT)
        .map(|_| {
            let (seen, bytes) = (Rc::clone(&seen), bytes.to_vec());
            spawn_local(async move {
                let mut client = None;
                while Instant::now() < end {
                    client = one(client, address, &bytes, &seen).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    seen
}

/// So many requests a second, whatever becomes of those before.
async fn open(address: SocketAddr, bytes: &[u8], arrivals: f64, length: Duration) -> Rc<Seen> {
    let seen = Rc::new(Seen::default());
    let pool: Rc<RefCell<Vec<Client>>> = Rc::default();
    let mut ticks = interval(Duration::from_secs_f64(1.0 / arrivals));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + length;
    let mut running = Vec::new();
    while Instant::now() < end {
        ticks.tick().await;
        let (seen, pool, bytes) = (Rc::clone(&seen), Rc::clone(&pool), bytes.to_vec());
        running.push(spawn_local(async move {
            let client = pool.borrow_mut().pop();
            let client = one(client, address, &bytes, &seen).await;
            pool.borrow_mut().extend(client);
        }));
    }
    for task in running {
        task.await.unwrap();
    }
    seen
}

/// One request; the connection, if it goes on.
async fn one(client: Option<Client>, address: SocketAddr, bytes: &[u8], seen: &Seen) -> Option<Client> {
    let began = Instant::now();
    let exchange = async {
        let mut client = match client {
            Some(client) => client,
            None => Client::plain(address).await?,
        };
        let reply = client.exchange(bytes).await?;
        Ok::<_, std::io::Error>((client, reply))
    };
    match timeout(PATIENCE, exchange).await {
        Err(_elapsed) => seen.late.set(seen.late.get() + 1),
        Ok(Err(_)) => seen.other.set(seen.other.get() + 1),
        Ok(Ok((client, reply))) => {
            match (reply.status, reply.has_retry_after) {
                (200, _) => seen.good.borrow_mut().push(began.elapsed()),
                (503, true) => seen.shed.borrow_mut().push(began.elapsed()),
                (503, false) => seen.unasked.set(seen.unasked.get() + 1),
                _ => seen.other.set(seen.other.get() + 1),
            }
            return (!reply.closes).then_some(client);
        }
    }
    None
}

/// Asks the listeners for operators until the storm is over; the slowest answer.
fn watch_operators(gate: &Gate, over: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let asks: [&dyn Fn() -> u16; 3] =
            [&|| gate.telemetry("/metrics").status(), &|| gate.telemetry("/ready").status(), &|| {
                gate.operate("GET", "/v1/config", None).status()
            }];
        for ask in asks {
            let began = Instant::now();
            assert_eq!(ask(), 200);
            slowest = slowest.max(began.elapsed());
        }
        testkit::let_pass(Duration::from_millis(200));
    }
    slowest
}

/// The first second after the storm in which goodput and latency are those of the peak.
fn recovery(
    runtime: &tokio::runtime::Runtime,
    address: SocketAddr,
    bytes: &[u8],
    peak: f64,
    calm: Duration,
) -> Option<u64> {
    const WINDOW: Duration = Duration::from_secs(1);
    (1..=30).find(|_| {
        let began = Instant::now();
        let seen = runtime.block_on(LocalSet::new().run_until(closed(address, bytes, WINDOW)));
        let mut times = seen.good.borrow().clone();
        rate(&seen, began.elapsed().max(WINDOW)) >= peak * 0.9 && p99(&mut times) <= calm * 2
    })
}
