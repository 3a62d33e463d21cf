//! A million tokens in use: the cost of each in memory and per request, what remains after they are gone, and
//! how long a restart takes.
//!
//! `cargo bench --bench sessions [-- TOKENS]`

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::identity::{ClientKey, IssuerKey, Key, SubjectKey, TokenKey};
use portcullis::revocations::{Revocations, TokenFacts};
use portcullis::sessions::{Idleness, Introduction, Sessions, Settings};
use portcullis::state::Store;
use portcullis::time::{Now, Timestamp};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const START: i64 = 1_800_000_000_000;

struct Token {
    key: TokenKey,
    client: Arc<str>,
}

impl Token {
    fn new(i: u64) -> Self {
        let high = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = TokenKey(Key::from_bytes(
            (u128::from(high) << 64 | u128::from(high.rotate_left(32))).to_be_bytes(),
        ));
        Self { key, client: format!("client-application-{i}").into() }
    }

    fn subject(&self) -> SubjectKey {
        SubjectKey(Key::from_bytes((!u128::from_be_bytes(self.key.0.to_bytes())).to_be_bytes()))
    }

    fn introduce<'a>(&'a self, issuer: &'a Arc<str>) -> Introduction<'a> {
        Introduction {
            token: self.key,
            issuer,
            subject: Some(self.subject()),
            client: Some(&self.client),
            issued_at: Timestamp::from_millis(START),
            known_since: Timestamp::from_millis(START),
            expires_at: Timestamp::from_millis(START + 86_400_000),
            names: None,
        }
    }
}

fn main() {
    let tokens = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000_u64);
    let (issuer, now) = (Arc::from("https://idp.example.com/"), Now::at_millis(START + 1_000));
    let revocations = Revocations::new(None);
    let settings = Settings {
        idle_timeouts: Some(Duration::from_secs(1_800)).into(),
        max_tracked: usize::try_from(tokens).unwrap_or(usize::MAX),
        leeway: Duration::from_secs(30),
        saved: true,
    };
    let sessions = Sessions::new(settings.clone());
    let empty = resident();
    // Each token has its own copy of its client's name, as if it had been parsed from a request.
    for i in 0..tokens {
        let token = Token::new(i);
        assert!(sessions.begin(None, &token.introduce(&issuer), None, now).is_ok());
    }
    let left = sessions.left();
    assert_eq!(left.capacity, 0, "there is room for all of them");
    println!("{} tracked, {} bytes resident for each", sessions.tracked(), (resident() - empty) / tokens);
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("gate.db");
    save(&sessions, &path, "all of them");
    println!("{} bytes resident for each after saving", (resident() - empty) / tokens);

    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for live in [1, 10_000, tokens] {
        let known: Vec<Token> = (0..live).map(Token::new).collect();
        // Kept with the proof, as in the gate.
        let kept: Vec<_> = known.iter().map(|token| sessions.find(token.key)).collect();
        let facts: Vec<TokenFacts> = known.iter().map(|token| facts(token, &issuer)).collect();
        let mut nanos: Vec<u64> = (0..500_u64)
            .map(|round| {
                let now = Now::at_millis(START + 2_000 + i64::try_from(round).unwrap_or(0));
                let started = Instant::now();
                for _ in 0..1_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let i = (random % live) as usize;
                    assert_eq!(revocations.load().judge(&facts[i], Now::at_millis(START)), None);
                    let (session, token) = (kept[i].as_ref(), known[i].introduce(&issuer));
                    assert_eq!(
                        sessions.judge(session.map(AsRef::as_ref), &token, None, now),
                        Idleness::InUse
                    );
                    assert!(sessions.begin(session, &token, None, now).is_ok());
                }
                u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX) / 1_000
            })
            .collect();
        nanos.sort_unstable();
        println!(
            "{live} live tokens at random: revoked? idle? used: median {} ns, 99 % {} ns",
            nanos[250], nanos[495]
        );
        save(&sessions, &path, "what changed");
    }

    leave(&sessions, now, empty);
    drop(sessions);
    restart(settings, &path, now);
}

/// Reads them back, like a gate that starts.
fn restart(settings: Settings, path: &Path, now: Now) {
    let (empty, sessions) = (resident(), Sessions::new(settings));
    let Ok(store) = Store::open(path, now) else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let started = Instant::now();
    let restored = runtime.block_on(sessions.restore(&store, now));
    let took = started.elapsed();
    drop(store);
    let each = resident().saturating_sub(empty) / (sessions.tracked().max(1) as u64);
    println!("restored {restored:?} in {took:.1?}, {each} bytes resident for each");
}

/// Lets all tokens go idle at once.
fn leave(sessions: &Sessions, now: Now, empty: u64) {
    let (before, started) = (resident(), Instant::now());
    sessions.sweep(now);
    println!("looked at {} in use in {:.1?}", sessions.tracked(), started.elapsed());
    let started = Instant::now();
    sessions.sweep(now.plus(Duration::from_secs(3_600)));
    let left = sessions.left();
    let gone = left.idle + left.expired;
    println!("sweep: {gone} gone, {} left in {:.1?}", sessions.tracked(), started.elapsed());
    // The allocator's own thread returns pages ten seconds after they were freed; nothing else happens here.
    std::thread::sleep(Duration::from_secs(15));
    println!(
        "resident above empty: {} KiB 15 s after the sweep, {} KiB before",
        resident().saturating_sub(empty) / 1024,
        (before - empty) / 1024
    );
}

fn facts(token: &Token, issuer: &str) -> TokenFacts {
    TokenFacts {
        token: token.key,
        issuer: IssuerKey::new(issuer),
        subject: Some(token.subject()),
        client: Some(ClientKey(token.key.0)),
        issued_at: Timestamp::from_millis(START),
        role_version: None,
        names: None,
    }
}

fn save(sessions: &Sessions, path: &Path, what: &str) {
    let Ok(store) = Store::open(path, Now::at_millis(START)) else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    for round in ["new", "again"] {
        let started = Instant::now();
        let saved = runtime.block_on(sessions.save(&store));
        println!("saved {what} ({round}): {saved:?} in {:.1?}", started.elapsed());
    }
}

fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
