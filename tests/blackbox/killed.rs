//! `kill -9` at random moments while clients use tokens and events are in flight, repeatedly on one store.
//!
//! After each restart: every acknowledged event ends its tokens, an unacknowledged one does so completely or
//! not at all, and no idle clock is late.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::operator::admin_call;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer, unique};
use testkit::wire::{Answer, Wire};
use testkit::{eventually, now, now_ms};

/// The idle timeout in milliseconds.
const IDLE: i64 = 4_000;
/// How early an idle clock may expire, in milliseconds; it may never be late.
const EARLY: i64 = 1_000;
/// A use that is this much older than the last use that a flush has saved has been saved as well, in milliseconds:
/// one flush writes the uses of all tokens. A second allows for the time in which a busy machine collects them.
const APART: i64 = 1_000;
/// How many clients use tokens, and how many publishers there are.
const CLIENTS: usize = 3;
const PUBLISHERS: usize = 2;
/// The tokens of a client: a few are in use, the others are at rest, so that their clocks run.
const TOKENS: usize = 12;

/// The number of rounds; `PORTCULLIS_KILL_ROUNDS` overrides it.
fn rounds() -> usize {
    std::env::var("PORTCULLIS_KILL_ROUNDS").map_or(50, |text| text.parse().expect("a number of rounds"))
}

/// A random number below `limit`.
fn random(limit: usize) -> usize {
    usize::from_str_radix(&unique()[..12], 16).unwrap() % limit
}

/// A connection that the gate may close at any moment.
struct Line(Wire);

impl Line {
    /// Connects to a gate that may be dead.
    fn to(address: SocketAddr) -> io::Result<Self> {
        Wire::try_plain(address).map(Self)
    }

    fn present(&mut self, token: &str) -> io::Result<Answer> {
        self.0.exchange(format!("GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n\r\n"))
    }

    /// Whether an event has ended the token; false if it is idle or in force.
    fn is_ended(&mut self, token: &str) -> bool {
        let answer = self.present(token).unwrap();
        let said = answer.text();
        let ended = ["revoked", "roles"].iter().any(|word| said.contains(word));
        assert!(ended || answer.status() == 200 || said.contains("(idle)"), "{} {said}", answer.status());
        ended
    }
}

/// A token in use, and what the test knows about its last use.
struct Used {
    token: String,
    /// The last use that the gate must know is at this moment or later.
    earliest: i64,
    /// Its last use is at this moment or earlier.
    latest: i64,
    /// `earliest` at the last restart, and every use since.
    uses: Vec<i64>,
}

impl Used {
    /// Accounts for a kill: uses after the last flush may be lost. The time of that flush is read from the
    /// file, because a busy machine may have delayed it.
    fn survive(&mut self, saved_at: i64) {
        let saved = self.uses.iter().rposition(|at| *at <= saved_at - APART).unwrap_or(0);
        self.earliest = self.uses[saved];
        self.uses = vec![self.earliest];
    }
}

/// A client with its tokens.
struct Client<'a> {
    issuer: &'a Issuer,
    tokens: Vec<Used>,
    passed: usize,
    idle: usize,
}

impl<'a> Client<'a> {
    fn new(issuer: &'a Issuer) -> Self {
        Self { issuer, tokens: Vec::new(), passed: 0, idle: 0 }
    }

    /// Presents the token at this index once, and checks the result against what is known.
    fn present(&mut self, line: &mut Line, place: usize) -> io::Result<()> {
        let used = &mut self.tokens[place];
        let before = now_ms();
        let answer = line.present(&used.token);
        let after = now_ms();
        let Ok(answer) = answer else {
            // It may have been forwarded.
            used.latest = after;
            return answer.map(drop);
        };
        if answer.status() == 200 {
            let unused = before - used.latest;
            assert!(unused <= IDLE, "late: unused for {unused} ms at least, and let through");
            (used.earliest, used.latest) = (before, after);
            used.uses.push(before);
            self.passed += 1;
        } else {
            assert!(answer.text().contains("(idle)"), "{}", answer.text());
            let unused = after - used.earliest;
            assert!(unused > IDLE - EARLY, "early: unused for {unused} ms at most, and refused");
            self.idle += 1;
            self.tokens.swap_remove(place);
        }
        Ok(())
    }

    /// Replaces tokens that went idle. The clock of a new token begins when it is issued.
    fn renew(&mut self) {
        while self.tokens.len() < TOKENS {
            let issued = now();
            let token =
                self.issuer.token().claim("iat", issued).claim("sub", "user").claim("client_id", "web");
            let (earliest, latest) = (issued * 1_000, issued * 1_000);
            self.tokens.push(Used { token: token.build(), earliest, latest, uses: vec![earliest] });
        }
    }

    /// Uses the tokens that are not at rest until the gate is gone.
    fn run(&mut self, address: SocketAddr, activity: &Activity) {
        self.renew();
        let Ok(mut line) = Line::to(address) else { return };
        // Some that have rested come back, whatever their clocks say.
        for _ in 0..3 {
            let place = random(self.tokens.len());
            if self.present(&mut line, place).is_err() {
                return;
            }
        }
        let awake: Vec<usize> = (0..3).map(|_| random(self.tokens.len())).collect();
        for place in awake.into_iter().cycle() {
            if self.tokens.len() <= place {
                self.renew();
            }
            if self.present(&mut line, place).is_err() {
                return;
            }
            activity.count();
        }
    }
}

/// How much has happened in a round.
#[derive(Default)]
struct Activity(AtomicUsize);

impl Activity {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// One call of the admin API: the tokens that it ends, and whether it was acknowledged.
struct Call {
    tokens: Vec<String>,
    acknowledged: bool,
}

/// A publisher of events, one call after the other.
struct Publisher<'a> {
    issuer: &'a Issuer,
    /// The issuer whose tokens end by events about the whole issuer, with a later time for each event.
    victim: Issuer,
    revoked_until: i64,
    calls: Vec<Call>,
}

impl Publisher<'_> {
    /// An event of a random type that affects nobody else, and a token that it ends.
    fn event(&mut self) -> (Value, String) {
        let name = unique();
        let token = || self.issuer.token();
        let (event, token) = match random(6) {
            0 => (json!({"type": "role-changed", "subject": name}), token().claim("sub", name)),
            1 => (
                json!({"type": "role-changed", "subject": name, "role_version": 5}),
                token().claim("sub", name).claim("role_version", 4),
            ),
            2 => (json!({"type": "subject-revoked", "subject": name}), token().claim("sub", name)),
            3 => (json!({"type": "client-revoked", "client": name}), token().claim("client_id", name)),
            4 => (json!({"type": "token-revoked", "jti": name}), token().claim("jti", name)),
            _ => {
                self.revoked_until += 1;
                let at = self.revoked_until;
                let token = self.victim.token().claim("iat", at).claim("jti", name);
                let event = json!({"type": "issuer-revoked", "issuer": self.victim.name, "at": at});
                return (event, token.build());
            }
        };
        let mut event = event;
        event["issuer"] = json!(self.issuer.name);
        (event, token.build())
    }

    fn run(&mut self, address: SocketAddr, activity: &Activity) {
        let Ok(mut wire) = Wire::try_plain(address) else { return };
        loop {
            let single = random(3) == 0;
            let size = if single { 1 } else { 2 + random(4) };
            let (events, tokens): (Vec<Value>, Vec<String>) = (0..size).map(|_| self.event()).unzip();
            let body = if single { events[0].to_string() } else { Value::from(events).to_string() };
            let answer = wire.exchange(admin_call("POST", "/v1/events", &body));
            let acknowledged = match &answer {
                Ok(answer) => {
                    assert_eq!(answer.status(), 202, "{}", answer.text());
                    true
                }
                Err(_killed) => false,
            };
            self.calls.push(Call { tokens, acknowledged });
            if !acknowledged {
                return;
            }
            activity.count();
        }
    }

    /// Checks that everything in an acknowledged call is in force, and all or nothing of an unacknowledged
    /// one; what is in force stays so. A call that is not in force is dropped, because later events about the
    /// issuer may end its tokens.
    fn check(&mut self, line: &mut Line, since: usize) {
        for call in &mut self.calls[since..] {
            let ended = call.tokens.iter().filter(|token| line.is_ended(token)).count();
            let all = call.tokens.len();
            assert!(!call.acknowledged || ended == all, "{} of {all} were lost", all - ended);
            assert!(ended == 0 || ended == all, "{ended} of {all} of a batch are in force");
            call.acknowledged = ended == all;
        }
        self.calls.retain(|call| call.acknowledged);
    }
}

/// Holds docs/operations.md, Failure modes: the process is killed
#[test]
fn nothing_acknowledged_is_lost_and_no_clock_runs_late_however_often_the_gate_is_killed() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    // With a long timeout, because a busy machine is not a fault.
    let mut settings = Settings::plaintext()
        .upstream("api", &app.url(), "connect_timeout = \"30s\"")
        .issuer(&issuer)
        .route("/{*rest}", "");
    let victim = |number: usize| {
        Issuer::with(&format!("https://victim-{number}.example/"), vec![Signer::new("ES256", "v")])
    };
    let mut publishers: Vec<Publisher<'_>> = (0..PUBLISHERS)
        .map(|number| Publisher {
            issuer: &issuer,
            victim: victim(number),
            // Far enough back that there is a second for every event.
            revoked_until: now() - 80_000,
            calls: Vec::new(),
        })
        .collect();
    for publisher in &publishers {
        settings = settings.issuer(&publisher.victim);
    }
    let settings = settings.admin().toml(&format!(
        "[state]\npath = \"state.db\"\non_empty = \"trust\"\nflush_interval = \"100ms\"\n\
         [sessions]\nidle_timeout = \"{IDLE}ms\"\n"
    ));
    let mut clients: Vec<Client<'_>> = (0..CLIENTS).map(|_| Client::new(&issuer)).collect();
    let mut saved = 0;
    for _ in 0..rounds() {
        saved = saved.max(round(&settings, &mut publishers, &mut clients));
    }
    let gate = Gate::start(&settings);
    for publisher in &mut publishers {
        publisher.check(&mut Line::to(gate.public).unwrap(), 0);
    }
    let calls = publishers.iter().flat_map(|publisher| &publisher.calls);
    let (events, passed, idle) = (
        calls.filter(|call| call.acknowledged).map(|call| call.tokens.len()).sum::<usize>(),
        clients.iter().map(|client| client.passed).sum::<usize>(),
        clients.iter().map(|client| client.idle).sum::<usize>(),
    );
    eprintln!("{events} events in force, {passed} requests passed, {idle} were idle");
    assert!(events > 0 && passed > 0 && saved > 0);
}

/// One life of the gate: checks what the previous one left, then runs traffic until the gate is killed. Returns
/// the last use that it has saved.
fn round(settings: &Settings, publishers: &mut [Publisher<'_>], clients: &mut [Client<'_>]) -> i64 {
    let mut gate = Gate::start(settings);
    for publisher in publishers.iter_mut() {
        let since = publisher.calls.len().saturating_sub(10);
        publisher.check(&mut Line::to(gate.public).unwrap(), since);
    }
    // Now and then a longer life, in which uses are saved and left alone.
    let enough = 1 + if random(8) == 0 { random(1_500) } else { random(120) };
    let activity = Activity::default();
    let (public, admin) = (gate.public, gate.admin);
    std::thread::scope(|scope| {
        let mut traffic = Vec::new();
        for publisher in publishers.iter_mut() {
            traffic.push(scope.spawn(|| publisher.run(admin, &activity)));
        }
        for client in clients.iter_mut() {
            traffic.push(scope.spawn(|| client.run(public, &activity)));
        }
        eventually("enough has happened", || {
            let failed = traffic.iter().any(std::thread::ScopedJoinHandle::is_finished);
            (failed || activity.0.load(Ordering::SeqCst) >= enough).then_some(())
        });
        gate.kill();
    });
    let saved_at = saved_at(settings);
    clients.iter_mut().flat_map(|client| &mut client.tokens).for_each(|used| used.survive(saved_at));
    saved_at
}

/// The last use that the killed gate has saved; 0 if none. Read from a copy, so that the next gate
/// finds the file unchanged.
fn saved_at(settings: &Settings) -> i64 {
    let copy = tempfile::tempdir().unwrap();
    for name in ["state.db", "state.db-wal"] {
        if settings.folder().join(name).exists() {
            std::fs::copy(settings.folder().join(name), copy.path().join(name)).unwrap();
        }
    }
    let file = Connection::open(copy.path().join("state.db")).unwrap();
    let last = "SELECT max(last_used_at) FROM sessions";
    file.query_row(last, [], |row| row.get::<_, Option<i64>>(0)).unwrap().unwrap_or(0)
}
