//! Durable events: how many per second are acknowledged in batches and one by one, and how long a million take to replay.
//!
//! `cargo bench --bench events [-- EVENTS]`; the store is a file in `$TMPDIR`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its figures, or that it cannot"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::events::EventLog;
use portcullis::revocations::Revocations;
use portcullis::state::Store;
use portcullis::state::record::{Event, EventKind, EventSource};
use portcullis::time::{Now, Timestamp};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const MOMENT: Now = Now::at_millis(1_800_000_000_000);

fn main() {
    let replayed = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000_usize);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        let log = start(&path).await;
        for clients in [1, 16] {
            rate(&log, "one by one", clients, 1).await;
            rate(&log, "batches of 100", clients, 100).await;
        }
        let missing = replayed.saturating_sub(events_in(&log).await);
        for batch in 0..missing.div_ceil(10_000) {
            let events = (0..10_000).map(|i| event(&format!("replayed {batch} {i}"))).collect();
            log.publish(events, EventSource::Admin, MOMENT).await.unwrap();
        }
        drop(log);
        let size = std::fs::metadata(&path).unwrap().len();
        let (started, used) = (Instant::now(), processor_time());
        let log = start(&path).await;
        let (took, used) = (started.elapsed(), processor_time() - used);
        let count = events_in(&log).await;
        println!(
            "{count} events replayed in {took:.2?} ({used:.2?} of processor time) from {} MiB",
            size >> 20
        );
    });
}

async fn start(path: &std::path::Path) -> Arc<EventLog> {
    let store = Store::open(path, MOMENT).unwrap();
    EventLog::start(store, Arc::new(Revocations::new(None))).await.unwrap()
}

async fn events_in(log: &EventLog) -> usize {
    let (mut count, mut after) = (0, 0);
    loop {
        let page = log.events(after, 50_000).await.unwrap();
        count += page.items.len();
        let Some(next) = page.next else { return count };
        after = next;
    }
}

/// Publishes for three seconds from this many clients concurrently; each waits for a response before it sends more.
async fn rate(log: &Arc<EventLog>, what: &str, clients: usize, batch: usize) {
    let started = Instant::now();
    let client = |client: usize| {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            let mut waits = Vec::new();
            while started.elapsed() < Duration::from_secs(3) {
                let name = |i| format!("{client} of {clients}, {batch} {} {i}", waits.len());
                let events = (0..batch).map(|i| event(&name(i))).collect();
                let sent = Instant::now();
                log.publish(events, EventSource::Admin, MOMENT).await.unwrap();
                waits.push(sent.elapsed());
            }
            waits
        })
    };
    let all: Vec<_> = (0..clients).map(client).collect();
    let mut waits = Vec::new();
    for one in all {
        waits.extend(one.await.unwrap());
    }
    let rate = (waits.len() * batch) as f64 / started.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    println!(
        "{what}, {clients} clients: {rate:.0} events/s; answered in {:.1?} median, {:.1?} 99 %",
        at(50),
        at(99)
    );
}

fn event(name: &str) -> Event {
    let expires_at = NOW.plus(Duration::from_secs(86_400));
    Event::subject(EventKind::SubjectRevoked, &"https://idp.example.com/".into(), name, NOW, expires_at)
}

/// The processor time of all threads of this process, in user and kernel space (`/proc/<pid>/stat`, fields 14
/// and 15, in hundredths of a second).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    Duration::from_millis(
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10,
    )
}
