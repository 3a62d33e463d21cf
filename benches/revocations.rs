//! Revocations at ten million subjects: what a look-up, an event and an entry cost, and what readers notice.
//!
//! `cargo bench --bench revocations [-- SUBJECTS]`

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis::identity::{ClientKey, IssuerKey, Key, SubjectKey, TokenKey};
use portcullis::revocations::{Cutoff, Ends, Revocations, TokenFacts};
use portcullis::time::Timestamp;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let subjects = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(10_000_000_u64);
    let before = resident();
    let revocations = Arc::new(Revocations::new(None));
    let started = Instant::now();
    for chunk in 0..subjects.div_ceil(100_000) {
        revocations
            .replay((chunk * 100_000..subjects.min((chunk + 1) * 100_000)).map(event), Timestamp::EPOCH);
    }
    revocations.fold(Timestamp::EPOCH);
    println!("{subjects} subjects loaded in {:.1?}", started.elapsed());
    settle();
    println!("{} bytes resident for each", (resident() - before) / subjects);

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (what, range) in [("present", subjects), ("absent ", u64::MAX)] {
        let mut nanos: Vec<u64> = (0..2_000).map(|_| lookups(&revocations, &mut random, range)).collect();
        println!("look-up, {what}: {}", summary(&mut nanos, "ns"));
    }

    let stop = Arc::new(AtomicBool::new(false));
    let folder = folder(&revocations, &stop);
    let mut nanos: Vec<u64> = (0..20_000).map(|i| published(&revocations, event(subjects + i))).collect();
    println!("publish, one after the other, folding beside: {}", summary(&mut nanos, "ns"));

    let quiet = reader(&revocations, subjects, &mut random);
    let writer = std::thread::spawn({
        let (revocations, stop) = (Arc::clone(&revocations), Arc::clone(&stop));
        move || {
            let (started, mut nanos) = (Instant::now(), Vec::new());
            for i in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                nanos.push(published(&revocations, event(subjects + 20_000 + u64::from(i))));
                std::thread::sleep((Duration::from_millis(1) * i).saturating_sub(started.elapsed()));
            }
            nanos
        }
    });
    let busy = reader(&revocations, subjects, &mut random);
    stop.store(true, Ordering::Relaxed);
    let mut nanos = writer.join().unwrap_or_default();
    drop(folder.join());
    println!("publish, 1,000 a second: {}", summary(&mut nanos, "ns"));
    println!("whole judgement: {quiet} ns alone, {busy} ns of thread time while 1,000 events/s arrive");

    let started = Instant::now();
    revocations.sweep(Timestamp::from_secs(4_000_000_000));
    println!("sweep of everything: {:.1?}", started.elapsed());
    println!("left: {:?}", revocations.load().counts());
}

fn subject(i: u64) -> SubjectKey {
    // What SHA-256 would spread, splitmix64 does faster.
    let mut mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    SubjectKey(Key::from_bytes((u128::from(mixed) << 64 | u128::from(i)).to_be_bytes()))
}

fn event(i: u64) -> Cutoff {
    let at = Timestamp::from_secs(1_000_000_000);
    Cutoff { ends: Ends::Roles { subject: subject(i), at, version: None }, expires_at: at }
}

fn facts(subject: SubjectKey) -> TokenFacts {
    TokenFacts {
        token: TokenKey(subject.0),
        issuer: IssuerKey::new("https://idp.example.com/"),
        subject: Some(subject),
        client: Some(ClientKey(subject.0)),
        issued_at: Timestamp::from_secs(2_000_000_000),
        role_version: None,
    }
}

/// Folds whatever is due, on a thread of its own.
fn folder(revocations: &Arc<Revocations>, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (revocations, stop) = (Arc::clone(revocations), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if revocations.is_due() {
                revocations.fold(Timestamp::EPOCH);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

/// Nanoseconds that publishing took, not counting those in which this thread waited for a processor.
fn published(revocations: &Revocations, event: Cutoff) -> u64 {
    let waited = run_delay();
    let nanos = timed(|| revocations.apply([event]));
    nanos.saturating_sub(run_delay() - waited)
}

/// Nanoseconds this thread was ready to run and did not (`/proc/<pid>/schedstat`, second field).
fn run_delay() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// Nanoseconds for one judgement, over a thousand of random subjects.
fn lookups(revocations: &Revocations, random: &mut Random, range: u64) -> u64 {
    let judged: Vec<TokenFacts> = (0..1_000).map(|_| facts(subject(random.next() % range))).collect();
    let nanos = timed(|| {
        for facts in &judged {
            assert_eq!(std::hint::black_box(revocations.load().judge(facts)), None);
        }
    });
    nanos / 1_000
}

/// Nanoseconds of this thread's time for one judgement, over two seconds.
fn reader(revocations: &Revocations, subjects: u64, random: &mut Random) -> u64 {
    let (started, mut nanos) = (Instant::now(), Vec::new());
    while started.elapsed() < Duration::from_secs(2) {
        nanos.push(lookups(revocations, random, subjects));
    }
    nanos.sort_unstable();
    nanos[nanos.len() / 2]
}

fn timed(work: impl FnOnce()) -> u64 {
    let started = Instant::now();
    work();
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn summary(values: &mut [u64], unit: &str) -> String {
    values.sort_unstable();
    let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
    format!("median {} {unit}, 99 % {} {unit}, worst {} {unit}", at(0.5), at(0.99), at(1.0))
}

/// Gives the allocator time, and occasion, to return what it holds back.
fn settle() {
    for _ in 0..60 {
        std::thread::sleep(Duration::from_millis(250));
        (1..64).for_each(|size| drop(std::hint::black_box(vec![0_u8; size * size * 16])));
    }
}

fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
