//! Revocations of ten million subjects: the cost of a look-up, an event and an entry, and how readers are affected.
//!
//! A look-up is a whole check of a token with a random subject, by the thousand: under one snapshot, where the
//! processor works on several concurrently, and each under a snapshot of its own as for requests, where it
//! finishes one before it begins the next. For comparison, in the same rounds: a `HashMap` with the same
//! entries, and the lower bound, reading random cache lines of as much memory, where the processor knows the
//! next address and where it must wait for it.
//!
//! `cargo bench --bench revocations [-- SUBJECTS]`

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::cell::Cell;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis::identity::{AsIs, ClientKey, IssuerKey, Key, SubjectKey, TokenKey};
use portcullis::revocations::{Ends, Revocations, TokenFacts};
use portcullis::time::{Now, Timestamp};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The moment at which tokens are checked.
const NOW: Now = Now::at_millis(2_000_000_000_000);
/// How many look-ups are timed together.
const BATCH: usize = 1_000;

fn main() {
    let subjects = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(10_000_000_u64);
    let before = resident();
    let revocations = Arc::new(Revocations::new(None));
    let started = Instant::now();
    for chunk in 0..subjects.div_ceil(100_000) {
        revocations.replay((chunk * 100_000..subjects.min((chunk + 1) * 100_000)).map(event));
    }
    revocations.fold();
    println!("{subjects} subjects loaded in {:.1?}", started.elapsed());
    settle();
    println!("{} bytes resident for each", (resident() - before) / subjects);

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    compare_lookups(&revocations, subjects, &mut random);

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
    println!("whole judgement: {quiet:.0} ns alone, {busy:.0} ns of thread time while 1,000 events/s arrive");

    let started = Instant::now();
    for chunk in 0..subjects.div_ceil(1_000) {
        let those = chunk * 1_000..subjects.min((chunk + 1) * 1_000);
        revocations.restate(those.map(|i| (event(i), None)));
        if revocations.is_due() {
            revocations.fold();
        }
    }
    println!("forgetting of everything, a thousand at a time: {:.1?}", started.elapsed());
    println!("left: {:?}", revocations.load().counts());
}

fn subject(i: u64) -> SubjectKey {
    // splitmix64 spreads keys as SHA-256 would, but faster; both halves, because tables use bits of both.
    let mix = |of: u64| {
        let mut mixed = of.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    SubjectKey(Key::from_bytes((u128::from(mix(i)) << 64 | u128::from(mix(!i))).to_be_bytes()))
}

fn event(i: u64) -> Ends {
    let at = Timestamp::from_secs(1_000_000_000);
    Ends::Roles { subject: subject(i), at, version: None }
}

fn facts(subject: SubjectKey) -> TokenFacts {
    TokenFacts {
        token: TokenKey(subject.0),
        issuer: IssuerKey::new("https://idp.example.com/"),
        subject: Some(subject),
        client: Some(ClientKey(subject.0)),
        issued_at: Timestamp::from_secs(2_000_000_000),
        role_version: None,
        names: None,
    }
}

/// Folds whatever is due, on a thread of its own.
fn folder(revocations: &Arc<Revocations>, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (revocations, stop) = (Arc::clone(revocations), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if revocations.is_due() {
                revocations.fold();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

/// The nanoseconds that publishing took, excluding those in which this thread waited for a processor.
fn published(revocations: &Revocations, event: Ends) -> u64 {
    let waited = run_delay();
    let nanos = timed(|| revocations.apply([event]));
    nanos.saturating_sub(run_delay() - waited)
}

/// The nanoseconds in which this thread was ready but did not run (`/proc/<pid>/schedstat`, second field).
fn run_delay() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// Prints the cost of look-ups next to the unavoidable cost.
fn compare_lookups(revocations: &Revocations, subjects: u64, random: &mut Random) {
    let map: HashMap<Key, [u32; 6], AsIs> = (0..subjects).map(|i| (subject(i).0, [1; 6])).collect();
    let mut lines = vec![Line([1; 8]); usize::try_from(subjects).unwrap_or(usize::MAX)];
    lines.iter_mut().for_each(|line| line.0 = [0; 8]);
    let line = |at: u64| lines[((u128::from(at) * lines.len() as u128) >> 64) as usize].0[0];
    for (what, range) in [("present", subjects), ("absent ", u64::MAX)] {
        let mut figures: [Vec<f64>; 5] = Default::default();
        for _ in 0..2_000 {
            // New keys each time, because recent ones are still in the processor's cache.
            let mut keys = || (0..BATCH).map(|_| subject(random.next() % range)).collect::<Vec<_>>();
            let judged = [keys(), keys()].map(|keys| keys.into_iter().map(facts).collect::<Vec<_>>());
            let snapshot = revocations.load();
            let waiting = Cell::new(0);
            let round = [
                each(&judged[0], |facts| snapshot.judge(facts, NOW).is_none()),
                each(&judged[1], |facts| revocations.load().judge(facts, NOW).is_none()),
                each(&keys(), |key| map.contains_key(&key.0) == (range == subjects)),
                each(&keys(), |key| line(key.0.high()) == 0),
                each(&keys(), |key| {
                    waiting.set(line(key.0.high() ^ waiting.get()));
                    waiting.get() == 0
                }),
            ];
            figures.iter_mut().zip(round).for_each(|(figures, nanos)| figures.push(nanos));
        }
        let [lookup, one, map, line, one_line] = figures.map(|mut nanos| median(&mut nanos));
        println!("look-up, {what}: median {lookup:.0} ns under one snapshot, {one:.0} ns each under its own");
        println!("  HashMap {map:.0} ns; one cache line {line:.0} ns, {one_line:.0} ns when waited for");
    }
}

/// As much as the processor fetches at once.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

/// The nanoseconds per item; all must be as expected.
fn each<T>(them: &[T], is_expected: impl Fn(&T) -> bool) -> f64 {
    let mut all = true;
    let nanos = timed(|| them.iter().for_each(|one| all &= black_box(is_expected(black_box(one)))));
    assert!(all);
    nanos as f64 / them.len() as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The nanoseconds per check, over a thousand random subjects.
fn lookups(revocations: &Revocations, random: &mut Random, range: u64) -> f64 {
    let judged: Vec<TokenFacts> = (0..BATCH).map(|_| facts(subject(random.next() % range))).collect();
    each(&judged, |facts| revocations.load().judge(facts, NOW).is_none())
}

/// The nanoseconds of this thread's time per check, over two seconds.
fn reader(revocations: &Revocations, subjects: u64, random: &mut Random) -> f64 {
    let (started, mut nanos) = (Instant::now(), Vec::new());
    while started.elapsed() < Duration::from_secs(2) {
        nanos.push(lookups(revocations, random, subjects));
    }
    median(&mut nanos)
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

/// Gives the allocator's own thread time to return what was freed.
fn settle() {
    std::thread::sleep(Duration::from_secs(15));
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
