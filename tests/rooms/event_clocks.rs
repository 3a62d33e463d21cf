//! The event log with clocks that step by years, changing settings, restarts and repetitions, driven at
//! random and compared with a plain specification: by the correct clock, every token that an event ended
//! stays ended, and no other is.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

use std::sync::Arc;
use std::time::Duration;

use portcullis::events::{EventIssuer, EventLog};
use portcullis::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey};
use portcullis::revocations::{Ended, Revocations, TokenFacts};
use portcullis::state::Store;
use portcullis::state::record::{Event, EventKind, EventOrigin, EventSource};
use portcullis::time::{Monotonic, Now, Timestamp};
use proptest::prelude::*;

const ISSUER: &str = "https://a/";
const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const LEEWAY: i64 = 30 * SECOND;
const MARGIN: i64 = 60 * SECOND;
/// The values of `max_lifetime`.
const LIFETIMES: [i64; 3] = [HOUR, 6 * HOUR, DAY];

#[derive(Debug, Clone)]
struct Token {
    name: String,
    subject: usize,
    client: usize,
    version: Option<u64>,
    issued_at: i64,
    life: i64,
}

/// An event as it was stored, and the real time at which it came.
#[derive(Debug, Clone)]
struct Told {
    sequence: u64,
    event: Event,
    at: i64,
    came: i64,
    undone: bool,
}

impl Told {
    /// Why it may end a token, and whether it must: it says nothing about tokens that are issued later.
    fn ends(&self, token: &Token) -> Option<(Ended, bool)> {
        let facts = facts(token);
        let until = token.issued_at.div_euclid(SECOND) <= self.at.div_euclid(SECOND);
        let key = self.event.key;
        let (ended, reason) = match self.event.kind {
            EventKind::TokenRevoked => (key == facts.token.0, Ended::Token),
            EventKind::SubjectRevoked => (until && Some(SubjectKey(key)) == facts.subject, Ended::Subject),
            EventKind::ClientRevoked => (until && Some(ClientKey(key)) == facts.client, Ended::Client),
            EventKind::IssuerRevoked => (until, Ended::Issuer),
            EventKind::RoleChanged | EventKind::SessionRevoked | EventKind::Undone => {
                let older = match (self.event.role_version, token.version) {
                    (Some(event), Some(token)) => token < event,
                    (None, _) | (Some(_), None) => until,
                };
                (older && Some(SubjectKey(key)) == facts.subject, Ended::Roles)
            }
        };
        (ended && !self.undone).then_some((reason, token.issued_at <= self.came))
    }
}

fn facts(token: &Token) -> TokenFacts {
    TokenFacts {
        token: TokenKey::new(ISSUER, &token.name),
        issuer: IssuerKey::new(ISSUER),
        subject: Some(SubjectKey::new(ISSUER, &token.subject.to_string())),
        client: Some(ClientKey::new(ISSUER, &token.client.to_string())),
        issued_at: Timestamp::from_millis(token.issued_at),
        role_version: token.version,
        names: None,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Issue {
        subject: usize,
        client: usize,
        version: Option<u64>,
        life: i64,
    },
    /// An event about what the newest tokens name; from a signal if it has an id.
    Happen {
        kind: EventKind,
        token: usize,
        ago: i64,
        version: Option<u64>,
        signal: Option<u8>,
    },
    Redeliver(usize),
    Undo(usize),
    Wait(i64),
    /// The wall clock is off by this much from now on.
    Clock(i64),
    Lifetime(usize),
    Trim,
    /// A start and a trim with a wall clock that is off by this much; then with the correct one.
    Glitch(i64),
    /// Stopped for this long.
    Restart(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![
        EventKind::RoleChanged,
        EventKind::SubjectRevoked,
        EventKind::TokenRevoked,
        EventKind::ClientRevoked,
        EventKind::IssuerRevoked,
    ]);
    let version = || prop::option::of(0_u64..4);
    let life = prop::sample::select(vec![HOUR / 2, HOUR, 5 * HOUR, 20 * HOUR]);
    let offset = || prop::sample::select(vec![HOUR, -HOUR, 3 * DAY, -3 * DAY, 7_000 * DAY, -7_000 * DAY]);
    let wait = || prop_oneof![8 => 0..10 * 60 * SECOND, 2 => 0..3 * HOUR, 1 => 0..2 * DAY];
    prop_oneof![
        4 => (0..2_usize, 0..2_usize, version(), life)
            .prop_map(|(subject, client, version, life)| Step::Issue { subject, client, version, life }),
        5 => (kind, any::<usize>(), -LEEWAY..2 * HOUR, version(), prop::option::of(0..4_u8)).prop_map(
            |(kind, token, ago, version, signal)| Step::Happen { kind, token, ago, version, signal }),
        2 => any::<usize>().prop_map(Step::Redeliver),
        2 => any::<usize>().prop_map(Step::Undo),
        6 => wait().prop_map(Step::Wait),
        2 => offset().prop_map(Step::Clock),
        4 => offset().prop_map(Step::Glitch),
        4 => Just(Step::Clock(0)),
        1 => (0..LIFETIMES.len()).prop_map(Step::Lifetime),
        4 => Just(Step::Trim),
        3 => wait().prop_map(Step::Restart),
    ]
}

struct Gate {
    log: Arc<EventLog>,
    revocations: Arc<Revocations>,
}

struct World {
    folder: tempfile::TempDir,
    gate: Option<Gate>,
    /// The real time, the offset of the wall clock, and when this process began.
    real: i64,
    offset: i64,
    began: i64,
    lifetime: usize,
    /// Whether settings have ever grown, so that old tokens may be rejected for what was deleted.
    grew: bool,
    tokens: Vec<Token>,
    told: Vec<Told>,
}

impl World {
    async fn new() -> Self {
        let real = 1_800_000_000 * SECOND;
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            gate: None,
            real,
            offset: 0,
            began: real,
            lifetime: 0,
            grew: false,
            tokens: Vec::new(),
            told: Vec::new(),
        };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        drop(self.gate.take());
        self.began = self.real;
        let store = Store::open(&self.folder.path().join("gate.db"), self.now()).unwrap();
        let revocations = Arc::new(Revocations::new(None));
        let log = EventLog::start(store, Arc::clone(&revocations)).await.unwrap();
        self.gate = Some(Gate { log, revocations });
    }

    fn now(&self) -> Now {
        // Far from the real clock of the process, which counts as well.
        let monotonic = Monotonic::from_millis(1_000_000_000 + self.real - self.began);
        Now { wall: Timestamp::from_millis(self.real + self.offset), monotonic }
    }

    fn gate(&self) -> &Gate {
        self.gate.as_ref().unwrap()
    }

    fn issuer(&self) -> EventIssuer {
        let millis = |millis: i64| Duration::from_millis(millis as u64);
        EventIssuer {
            issuer: ISSUER.into(),
            leeway: millis(LEEWAY),
            max_lifetime: millis(LIFETIMES[self.lifetime]),
        }
    }

    fn judge(&self) {
        if self.offset != 0 {
            return;
        }
        let (snapshot, now) = (self.gate().revocations.load(), self.now());
        for token in &self.tokens {
            let alive =
                self.real <= token.issued_at + token.life + LEEWAY && token.life <= LIFETIMES[self.lifetime];
            if !alive {
                continue;
            }
            let ends = || self.told.iter().filter_map(|told| Some((told, told.ends(token)?)));
            let must = ends().any(|(_, (_, must))| must);
            match snapshot.judge(&facts(token), now) {
                None => assert!(!must, "let through: {token:?} at {}, {:?}", self.real, self.told),
                Some(Ended::BeforeState) => assert!(self.grew, "before state: {token:?} at {}", self.real),
                Some(reason) => {
                    let may = ends().any(|(_, (may, _))| may == reason);
                    assert!(may, "{reason:?}: {token:?} at {}, {:?}", self.real, self.told);
                }
            }
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Issue { subject, client, version, life } => {
                let (name, issued_at) = (self.tokens.len().to_string(), self.real / SECOND * SECOND);
                self.tokens.push(Token { name, subject, client, version, issued_at, life });
            }
            Step::Happen { kind, token, ago, version, signal } => {
                let Some(token) = self.tokens.iter().rev().nth(token % self.tokens.len().max(1)) else {
                    return;
                };
                let event = self.event(kind, &token.clone(), ago, version, signal);
                self.tell(event).await;
            }
            Step::Redeliver(nth) if !self.told.is_empty() => {
                let event = self.told[nth % self.told.len()].event.clone();
                // The time of a signal is computed again.
                let at = if event.origin.is_some() { event.at.min(self.now().wall) } else { event.at };
                self.tell(Event { at, expires_at: self.issuer().expiry(self.now().wall), ..event }).await;
            }
            Step::Undo(nth) if !self.told.is_empty() => {
                let nth = nth % self.told.len();
                let (sequence, now) = (self.told[nth].sequence, self.now());
                let undone = self.gate().log.undo(sequence, EventSource::Admin, now).await.unwrap();
                self.told[nth].undone |= undone.is_some();
            }
            Step::Redeliver(_) | Step::Undo(_) => {}
            Step::Wait(millis) => self.real += millis,
            Step::Clock(offset) => self.offset = offset,
            Step::Lifetime(nth) => {
                self.grew |= nth > self.lifetime;
                self.lifetime = nth;
            }
            Step::Trim => drop(self.gate().log.trim(self.now(), &[self.issuer()]).await.unwrap()),
            Step::Glitch(offset) => {
                for offset in [offset, 0] {
                    self.offset = offset;
                    self.start().await;
                    self.gate().log.trim(self.now(), &[self.issuer()]).await.unwrap();
                }
            }
            Step::Restart(millis) => {
                drop(self.gate.take());
                self.real += millis;
                self.start().await;
            }
        }
    }

    fn event(
        &self,
        kind: EventKind,
        token: &Token,
        ago: i64,
        version: Option<u64>,
        signal: Option<u8>,
    ) -> Event {
        let (issuer, wall) = (self.issuer(), self.now().wall);
        let claimed = Timestamp::from_millis((wall.as_millis() - ago).max(SECOND));
        let at = if signal.is_some() { claimed.min(wall) } else { claimed };
        let expires_at = issuer.expiry(wall);
        let event = match kind {
            EventKind::TokenRevoked => Event::token(&issuer.issuer, &token.name, at, expires_at),
            EventKind::ClientRevoked => {
                Event::client(&issuer.issuer, &token.client.to_string(), at, expires_at)
            }
            EventKind::IssuerRevoked => Event::issuer(&issuer.issuer, at, expires_at),
            kind => Event::subject(kind, &issuer.issuer, &token.subject.to_string(), at, expires_at),
        };
        let origin = signal.map(|id| EventOrigin::signal("https://idp/", &id.to_string(), "type", claimed));
        Event { role_version: version.filter(|_| kind == EventKind::RoleChanged), origin, ..event }
    }

    async fn tell(&mut self, event: Event) {
        let now = self.now();
        let published = self.gate().log.publish(vec![event.clone()], EventSource::Admin, now).await.unwrap();
        let sequence = published.sequence;
        match self.told.iter().find(|told| told.sequence == sequence) {
            Some(told) => assert!(same(&told.event, &event), "{event:?} is not {told:?}"),
            None => {
                let newest = self.told.iter().map(|told| told.sequence).max().unwrap_or(0);
                assert!(sequence > newest, "a sequence is never given twice");
                let kept_for = LIFETIMES[0] + 2 * LEEWAY + MARGIN;
                let repeated = self.told.iter().find(|told| same(&told.event, &event));
                let over = repeated.is_none_or(|told| self.real - told.came > kept_for);
                assert!(over, "a repetition is the same event: {event:?}, {repeated:?}");
                let (at, came) = (event.at.as_millis(), self.real);
                self.told.push(Told { sequence, event, at, came, undone: false });
            }
        }
    }
}

fn same(one: &Event, other: &Event) -> bool {
    let named = one.kind == other.kind && one.key == other.key && one.origin == other.origin;
    named && (one.origin.is_some() || (one.at == other.at && one.role_version == other.role_version))
}

/// `PROPTEST_CASES` makes a run longer.
fn config() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(64),
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn by_the_right_clock_what_was_ended_is_ended_and_nothing_else(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
                world.judge();
            }
        });
    }
}

/// An event comes and is deleted with a wrong clock at one of these moments or at both; then the clock is
/// correct and settings grow, so that a token would be accepted again that the event has ended.
#[tokio::test]
async fn an_event_that_came_and_left_by_a_wrong_clock_still_ends_its_tokens_when_settings_grow() {
    const OFFSETS: [i64; 5] = [0, -HOUR, -3 * DAY, 3 * DAY, -7_000 * DAY];
    let mut deleted = 0;
    for (came, left, stopped) in OFFSETS
        .into_iter()
        .flat_map(|came| OFFSETS.map(|left| (came, left)))
        .flat_map(|(came, left)| [None, Some(0), Some(HOUR)].map(|stopped| (came, left, stopped)))
    {
        let what = format!("came {came}, left {left}, stopped {stopped:?}");
        let mut world = World::new().await;
        let issue = Step::Issue { subject: 0, client: 0, version: None, life: 20 * HOUR };
        world.take(issue.clone()).await;
        world.take(Step::Clock(came)).await;
        // Whether it goes by time or not.
        let kind = EventKind::TokenRevoked;
        world.take(Step::Happen { kind, token: 0, ago: 0, version: None, signal: None }).await;
        world.take(Step::Wait(2 * HOUR)).await;
        let mut gone = 0;
        if let Some(stopped) = stopped {
            // Running time is counted with what is written.
            gone += world.gate().log.trim(world.now(), &[world.issuer()]).await.unwrap();
            world.take(Step::Restart(stopped)).await;
        }
        world.take(Step::Clock(left)).await;
        gone += world.gate().log.trim(world.now(), &[world.issuer()]).await.unwrap();
        deleted += gone;
        world.take(Step::Clock(0)).await;
        world.take(issue).await;
        world.take(Step::Lifetime(2)).await;
        world.take(Step::Wait(2 * HOUR)).await;
        let verdict = |world: &World, token: usize| {
            world.gate().revocations.load().judge(&facts(&world.tokens[token]), world.now())
        };
        for _ in 0..2 {
            let expected = if gone > 0 { Ended::BeforeState } else { Ended::Token };
            assert_eq!(verdict(&world, 0), Some(expected), "{what}");
            assert_eq!(verdict(&world, 1), None, "issued after the event: {what}");
            world.take(Step::Trim).await;
            world.take(Step::Restart(0)).await;
        }
    }
    assert!(deleted > 20, "{deleted} events left");
}
