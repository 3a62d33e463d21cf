//! Idle clocks, events and the store together, driven at random and compared with a plain specification: why a
//! token is rejected may depend only on what happened, whatever was swept, saved or restarted in between.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

use std::sync::Arc;
use std::time::Duration;

use portcullis::events::{EventIssuer, EventLog};
use portcullis::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey};
use portcullis::revocations::{Ended, Revocations, TokenFacts};
use portcullis::sessions::{Idleness, Introduction, Sessions, Settings};
use portcullis::state::Store;
use portcullis::state::record::{Event, EventKind, EventSource};
use portcullis::time::{Now, Timestamp};
use proptest::prelude::*;

const IDLE: i64 = 60_000;
const LEEWAY: i64 = 5_000;
const LIFETIME: i64 = 600_000;
/// How much longer than necessary events are kept.
const MARGIN: i64 = 60_000;
const ISSUERS: [&str; 2] = ["https://a/", "https://b/"];

// ---- the specification ------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Token {
    issuer: usize,
    subject: usize,
    client: usize,
    name: String,
    issued_at: i64,
    version: Option<u64>,
    last_use: i64,
    saved_use: i64,
    refused: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Happened {
    kind: EventKind,
    issuer: usize,
    /// Subject or client; for `token-revoked`, the token.
    whose: usize,
    at: i64,
    version: Option<u64>,
}

struct Told {
    what: Happened,
    received_at: i64,
    /// In running time, part of which a crash may lose.
    received_uptime: i64,
    undone: bool,
    /// No longer in the log, so that a repetition is a new event.
    trimmed: bool,
}

impl Told {
    fn ends(&self, index: usize, token: &Token, now: i64) -> Option<(Ended, bool)> {
        let (event, second) = (&self.what, token.issued_at.div_euclid(1000));
        let until = second <= event.at.div_euclid(1000);
        let (reason, meant, ended) = match event.kind {
            EventKind::TokenRevoked => (Ended::Token, event.whose == index, true),
            EventKind::SubjectRevoked => (Ended::Subject, event.whose == token.subject, until),
            EventKind::ClientRevoked => (Ended::Client, event.whose == token.client, until),
            EventKind::IssuerRevoked => (Ended::Issuer, true, until),
            EventKind::RoleChanged | EventKind::SessionRevoked | EventKind::Undone => {
                let older = match (event.version, token.version) {
                    (Some(event), Some(token)) => token < event,
                    (None, _) | (Some(_), None) => until,
                };
                (Ended::Roles, event.whose == token.subject, older)
            }
        };
        // What does not go by time may be forgotten once every token is dead that was issued before it was known.
        let by_time = event.version.is_none() && event.kind != EventKind::TokenRevoked;
        let forgotten = !by_time && now > event.at.max(self.received_at) + LIFETIME + 2 * LEEWAY;
        (event.issuer == token.issuer && !self.undone && meant && ended).then_some((reason, forgotten))
    }
}

// ---- the real thing ---------------------------------------------------------------------------------------------

struct Gate {
    store: Store,
    log: Arc<EventLog>,
    revocations: Arc<Revocations>,
    sessions: Sessions,
}

impl Gate {
    async fn start(path: &std::path::Path, now: i64) -> Self {
        let store = Store::open(path, both(now)).unwrap();
        let revocations = Arc::new(Revocations::new(Some(store.created_at())));
        let log = EventLog::start(store.clone(), Arc::clone(&revocations)).await.unwrap();
        let leeway = Duration::from_millis(LEEWAY as u64);
        let idle_timeouts = Some(Duration::from_millis(IDLE as u64)).into();
        let sessions = Sessions::new(Settings { idle_timeouts, max_tracked: 1_000, leeway, saved: true });
        sessions.restore(&store, both(now)).await.unwrap();
        Self { store, log, revocations, sessions }
    }

    fn with<T>(&self, token: &Token, judge: impl FnOnce(&Introduction<'_>) -> T) -> T {
        let issuer: Arc<str> = ISSUERS[token.issuer].into();
        judge(&Introduction {
            token: TokenKey::new(&issuer, &token.name),
            issuer: &issuer,
            subject: Some(SubjectKey::new(&issuer, &token.subject.to_string())),
            client: None,
            issued_at: ms(token.issued_at),
            known_since: ms(token.issued_at),
            expires_at: ms(token.issued_at + LIFETIME),
            names: None,
        })
    }

    /// Why the token is rejected; `Some(None)` if it is idle.
    fn judge(&self, token: &Token, now: i64) -> Option<Option<Ended>> {
        let issuer = ISSUERS[token.issuer];
        let facts = TokenFacts {
            token: TokenKey::new(issuer, &token.name),
            issuer: IssuerKey::new(issuer),
            subject: Some(SubjectKey::new(issuer, &token.subject.to_string())),
            client: Some(ClientKey::new(issuer, &token.client.to_string())),
            issued_at: ms(token.issued_at),
            role_version: token.version,
            names: None,
        };
        if let Some(ended) = self.revocations.load().judge(&facts, both(now)) {
            return Some(Some(ended));
        }
        let verdict = self.with(token, |token| {
            let session = self.sessions.find(token.token);
            let verdict = self.sessions.judge(session.as_deref(), token, None, both(now));
            if let (Idleness::Idle, Some(session)) = (verdict, session) {
                self.sessions.close(&session, token, both(now));
            }
            verdict
        });
        (verdict != Idleness::InUse).then_some(None)
    }

    fn begin(&self, token: &Token, now: i64) -> bool {
        self.with(token, |token| {
            let session = self.sessions.find(token.token);
            self.sessions.begin(session.as_ref(), token, None, both(now)).is_ok()
        })
    }
}

/// Both clocks, which agree here.
fn both(millis: i64) -> Now {
    Now::at_millis(millis)
}

fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

// ---- both, step by step -----------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Issue {
        issuer: usize,
        subject: usize,
        client: usize,
        version: Option<u64>,
    },
    /// A request with one of the newest tokens: judged, and forwarded after `late` more milliseconds, or not at all.
    Request {
        token: usize,
        late: Option<i64>,
    },
    Happen {
        kind: EventKind,
        issuer: usize,
        whose: usize,
        ago: i64,
        version: Option<u64>,
    },
    Redeliver(usize),
    Undo(usize),
    Wait(i64),
    Save,
    Sweep,
    Trim,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let version = || prop::option::of(0_u64..4);
    let kind = prop::sample::select(vec![
        EventKind::RoleChanged,
        EventKind::SubjectRevoked,
        EventKind::TokenRevoked,
        EventKind::ClientRevoked,
        EventKind::IssuerRevoked,
    ]);
    prop_oneof![
        2 => (0..2_usize, 0..2_usize, 0..2_usize, version())
            .prop_map(|(issuer, subject, client, version)| Step::Issue { issuer, subject, client, version }),
        12 => (prop_oneof![3 => Just(0), 1 => any::<usize>()], prop::option::weighted(0.8, prop_oneof![6 => Just(0), 1 => 0..70_000_i64]))
            .prop_map(|(token, late)| Step::Request { token, late }),
        3 => (kind, 0..2_usize, any::<usize>(), -LEEWAY..100_000_i64, version())
            .prop_map(|(kind, issuer, whose, ago, version)| Step::Happen { kind, issuer, whose, ago, version }),
        1 => any::<usize>().prop_map(Step::Redeliver),
        1 => any::<usize>().prop_map(Step::Undo),
        8 => wait().prop_map(Step::Wait),
        4 => Just(Step::Save),
        1 => Just(Step::Sweep),
        1 => Just(Step::Trim),
        2 => Just(Step::Restart),
    ]
}

/// Mostly within the idle timeout, often at its very end, sometimes beyond a token's lifetime.
fn wait() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0..20_000_i64, 1 => 0..61_000_i64, 1 => Just(IDLE), 1 => Just(IDLE + 1), 1 => 0..400_000_i64]
}

struct World {
    folder: tempfile::TempDir,
    gate: Option<Gate>,
    now: i64,
    tokens: Vec<Token>,
    told: Vec<(u64, Told)>,
    /// When the store was opened, the running time it had counted then, and what it has written of it since.
    opened: i64,
    resumed: i64,
    counted: i64,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = 1_000_000_000;
        let gate = Some(Gate::start(&folder.path().join("gate.db"), now).await);
        let (tokens, told) = (Vec::new(), Vec::new());
        Self { folder, gate, now, tokens, told, opened: now, resumed: 0, counted: 0 }
    }

    fn uptime(&self) -> i64 {
        self.resumed + self.now - self.opened
    }

    fn gate(&self) -> &Gate {
        self.gate.as_ref().unwrap()
    }

    /// Asserts that the gate and the specification agree on whether the token is in force.
    fn judge(&mut self, index: usize) -> bool {
        let (now, token) = (self.now, &self.tokens[index]);
        if now > token.issued_at + LIFETIME + LEEWAY {
            return false; // expired: refused before anybody asks
        }
        let ends: Vec<_> = self.told.iter().filter_map(|(_, told)| told.ends(index, token, now)).collect();
        let must = ends.iter().filter(|(_, forgotten)| !forgotten).map(|(reason, _)| *reason).min();
        let may = |reason| ends.iter().any(|(known, _)| *known == reason);
        let idle = token.refused || now - token.last_use > IDLE;
        let answer = self.gate().judge(token, now);
        match &answer {
            Some(Some(reason)) => {
                let told = may(*reason) && must.is_none_or(|must| *reason <= must);
                assert!(told, "{reason:?}, {must:?}: {token:?} at {now}");
            }
            Some(None) => assert!(must.is_none() && idle, "idle: {token:?} at {now}"),
            None => assert!(must.is_none() && !idle, "let through: {token:?} at {now}, {must:?}"),
        }
        // Final where there is a session; before its first use a token has only its issue to be judged by.
        self.tokens[index].refused |= answer == Some(None);
        answer.is_none()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Issue { issuer, subject, client, version } => {
                let (name, issued_at) = (self.tokens.len().to_string(), self.now.div_euclid(1000) * 1000);
                let (last_use, saved_use, refused) = (issued_at, issued_at, false);
                self.tokens.push(Token {
                    issuer,
                    subject,
                    client,
                    name,
                    issued_at,
                    version,
                    last_use,
                    saved_use,
                    refused,
                });
            }
            Step::Request { token, late } if !self.tokens.is_empty() => {
                self.request(self.tokens.len() - 1 - token % self.tokens.len(), late);
            }
            Step::Happen { kind, issuer, whose, ago, version } => {
                let version = version.filter(|_| kind == EventKind::RoleChanged);
                let token = kind == EventKind::TokenRevoked;
                let whose = if token { whose % self.tokens.len().max(1) } else { whose % 2 };
                let issuer =
                    if token { self.tokens.get(whose).map_or(0, |token| token.issuer) } else { issuer };
                self.tell(Happened { kind, issuer, whose, at: self.now - ago, version }).await;
            }
            Step::Redeliver(nth) if !self.told.is_empty() => {
                self.tell(self.told[nth % self.told.len()].1.what.clone()).await;
            }
            Step::Undo(nth) if !self.told.is_empty() => {
                let nth = nth % self.told.len();
                let now = both(self.now);
                let found = self.gate().log.undo(self.told[nth].0, EventSource::Admin, now).await.unwrap();
                self.told[nth].1.undone |= found.is_some();
            }
            Step::Wait(millis) => self.now += millis,
            Step::Save => {
                self.gate().sessions.save(&self.gate().store).await.unwrap();
                self.tokens.iter_mut().for_each(|token| token.saved_use = token.last_use);
            }
            Step::Sweep => {
                self.gate().sessions.sweep(both(self.now));
            }
            Step::Trim => self.trim().await,
            Step::Restart => {
                // Without a last save, as a crash would.
                drop(self.gate.take());
                self.gate = Some(Gate::start(&self.folder.path().join("gate.db"), self.now).await);
                self.opened = self.now;
                self.resumed = self.counted;
                self.tokens.iter_mut().for_each(|token| token.last_use = token.saved_use);
            }
            Step::Request { .. } | Step::Redeliver(_) | Step::Undo(_) => {}
        }
    }

    async fn trim(&mut self) {
        self.gate().log.trim(both(self.now), &ISSUERS.map(issuer)).await.unwrap();
        self.gate().sessions.trim(&self.gate().store, both(self.now).monotonic).await.unwrap();
        self.counted = self.uptime();
        let (now, uptime) = (self.now, self.uptime());
        self.told.iter_mut().for_each(|(_, told)| {
            let over = |since: i64, now: i64| now - since > LIFETIME + 2 * LEEWAY + MARGIN;
            told.trimmed |= over(told.received_at, now) && over(told.received_uptime, uptime);
        });
    }

    fn request(&mut self, index: usize, late: Option<i64>) {
        if !self.judge(index) {
            return;
        }
        let Some(late) = late else { return };
        let judged_at = self.now;
        self.now += late;
        // Another request in the meantime, which may find the token idle and so make this one's use void.
        self.judge(index);
        let used = self.gate().begin(&self.tokens[index], judged_at);
        let token = &mut self.tokens[index];
        assert!(used || token.refused);
        if used {
            // A first use in time counts, even when a later look found the token idle meanwhile.
            token.refused = false;
            token.last_use = token.last_use.max(judged_at);
        }
    }

    async fn tell(&mut self, what: Happened) {
        let (at, now) = (ms(what.at), ms(self.now));
        let issuer = issuer(ISSUERS[what.issuer]);
        let expires_at = issuer.expiry(now);
        let name = what.whose.to_string();
        let event = match what.kind {
            EventKind::TokenRevoked => Event::token(&issuer.issuer, &name, at, expires_at),
            EventKind::ClientRevoked => Event::client(&issuer.issuer, &name, at, expires_at),
            EventKind::IssuerRevoked => Event::issuer(&issuer.issuer, at, expires_at),
            kind => Event::subject(kind, &issuer.issuer, &name, at, expires_at),
        };
        let event = Event { role_version: what.version, ..event };
        let published =
            self.gate().log.publish(vec![event], EventSource::Admin, both(self.now)).await.unwrap();
        self.counted = self.uptime();
        assert_eq!(published.accepted, 1);
        match self.told.iter().find(|(_, told)| !told.trimmed && same(&told.what, &what)) {
            Some((sequence, _)) => {
                assert_eq!(published.sequence, *sequence, "a repetition is the same event")
            }
            None => {
                let (received_at, received_uptime) = (self.now, self.uptime());
                let told = Told { what, received_at, received_uptime, undone: false, trimmed: false };
                self.told.push((published.sequence, told));
            }
        }
    }
}

fn issuer(name: &str) -> EventIssuer {
    EventIssuer {
        issuer: name.into(),
        leeway: Duration::from_millis(LEEWAY as u64),
        max_lifetime: Duration::from_millis(LIFETIME as u64),
    }
}

/// An `issuer-revoked` names nobody, so it is the same whatever subject the step chose.
fn same(one: &Happened, other: &Happened) -> bool {
    let nobody = one.kind == EventKind::IssuerRevoked;
    let other = Happened { whose: if nobody { one.whose } else { other.whose }, ..other.clone() };
    *one == other
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_token_is_in_force_exactly_as_specified(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
                for index in 0..world.tokens.len() {
                    world.judge(index);
                }
            }
        });
    }
}
