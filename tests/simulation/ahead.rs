//! Several gates on one shared store, and issuers whose clocks are ahead or behind: a token ends with an event after its first
//! use at any of the gates. The shared store is played, as in [`crate::fleet`].

use std::collections::HashMap;

use http::HeaderMap;
use portcullis::enforce::decide::{Ask, Asked, Verdict};
use portcullis::identity::TokenKey;
use portcullis::state::redis::FirstUse;
use portcullis::time::{Now, Timestamp};
use serde_json::json;

use crate::gate::{self, AUDIENCE, Gate, NAMES, why};
use crate::random::Random;
use crate::search::{Disagreement, Tally, World};
use crate::specification::Why;
use crate::steps::{DAY, HOUR, SECOND, Settings, from_newest};

const GATES: usize = 3;
const BEGIN: i64 = 1_800_000_000_123;
const LIFETIME: i64 = 12 * HOUR;
const LEEWAY: i64 = 30 * SECOND;
const SETTINGS: Settings =
    Settings { idle: [None; 2], common: 0, max_lifetime: [DAY; 2], leeway: [LEEWAY; 2] };

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Issue {
        subject: usize,
        skew: i64,
    },
    Request {
        gate: usize,
        token: usize,
    },
    /// The shared store's answer to a request that waits arrives; or is lost.
    Answer {
        waiting: usize,
        lost: bool,
    },
    /// A subject is revoked, as of a moment that may be past.
    Happen {
        subject: usize,
        ago: i64,
    },
    /// A gate ends and another starts in its place, which knows the events and nothing else.
    Restart(usize),
    /// First uses reach the shared store before time passes.
    Wait(i64),
}

#[derive(Debug, Clone)]
struct Token {
    subject: usize,
    /// By the clock of its issuer.
    issued: i64,
    key: TokenKey,
    /// The first request that a gate judged, and the first that one forwarded.
    seen: Option<i64>,
    used: Option<i64>,
    /// Whether each gate was answered since it started.
    is_answered: [bool; GATES],
}

/// A request between its question and the answer.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    gate: usize,
    token: usize,
    told: FirstUse,
}

pub(crate) struct Ahead {
    gates: Vec<Gate>,
    /// When each gate's monotonic clock was zero.
    booted: [i64; GATES],
    now: i64,
    tokens: Vec<Token>,
    presented: Vec<HeaderMap>,
    /// Subject and moment.
    events: Vec<(usize, i64)>,
    /// What the shared store keeps, and what is on its way.
    shared: HashMap<TokenKey, i64>,
    told: Vec<(TokenKey, i64)>,
    waiting: Vec<Waiting>,
    tally: Tally,
}

fn second(millis: i64) -> i64 {
    millis.div_euclid(SECOND)
}

impl World for Ahead {
    type Beginning = ();
    type Step = Step;

    fn beginning(_random: &mut Random) {}

    async fn new((): ()) -> Self {
        let mut gates = Vec::new();
        for _ in 0..GATES {
            gates.push(Gate::replica(SETTINGS, gate::moment(BEGIN, 0)).await);
        }
        Self {
            gates,
            booted: [BEGIN; GATES],
            now: BEGIN,
            tokens: Vec::new(),
            presented: Vec::new(),
            events: Vec::new(),
            shared: HashMap::new(),
            told: Vec::new(),
            waiting: Vec::new(),
            tally: Tally::new(),
        }
    }

    fn step(&self, random: &mut Random) -> Step {
        match random.below(100) {
            0..=9 => Step::Issue { subject: random.index(2), skew: random.between(-LEEWAY, LEEWAY) },
            10..=59 => Step::Request { gate: random.index(GATES), token: random.index(4) },
            60..=71 => Step::Answer { waiting: random.index(3), lost: random.once_in(10) },
            72..=77 => {
                let ago = if random.once_in(2) { 0 } else { random.between(0, LEEWAY) };
                Step::Happen { subject: random.index(2), ago }
            }
            78 => Step::Restart(random.index(GATES)),
            79..=90 => Step::Wait(random.between(0, 2 * SECOND)),
            _ => Step::Wait(random.between(0, 15 * SECOND)),
        }
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    async fn take(&mut self, step: Step) -> Result<(), Disagreement> {
        match step {
            Step::Issue { subject, skew } => self.issue(subject, skew),
            Step::Request { gate, token } => {
                if let Some(token) = from_newest(&self.presented, token) {
                    self.request(gate, token, None)?;
                }
            }
            Step::Answer { waiting, lost } => {
                if let Some(waiting) = from_newest(&self.waiting, waiting) {
                    let Waiting { gate, token, told } = self.waiting.remove(waiting);
                    let told = if lost { FirstUse::Unknown } else { told };
                    self.tokens[token].is_answered[gate] |= !lost;
                    self.request(gate, token, Some(told))?;
                }
            }
            Step::Happen { subject, ago } => {
                self.events.push((subject, self.now - ago));
                for gate in 0..GATES {
                    self.tell_event(gate, (subject, self.now - ago)).await;
                }
            }
            Step::Restart(gate) => {
                self.booted[gate] = self.now;
                self.gates[gate] = Gate::replica(SETTINGS, self.moment(gate)).await;
                for event in self.events.clone() {
                    self.tell_event(gate, event).await;
                }
                self.waiting.retain(|waiting| waiting.gate != gate);
                self.tokens.iter_mut().for_each(|token| token.is_answered[gate] = false);
            }
            Step::Wait(time) => {
                for (token, first) in self.told.drain(..) {
                    let kept = self.shared.entry(token).or_insert(first);
                    *kept = first.min(*kept);
                }
                self.now += time;
            }
        }
        Ok(())
    }
}

impl Ahead {
    fn moment(&self, gate: usize) -> Now {
        gate::moment(self.now, self.now - self.booted[gate])
    }

    fn issue(&mut self, subject: usize, skew: i64) {
        let (index, issued) = (self.presented.len().to_string(), second(self.now + skew) * SECOND);
        self.presented.push(gate::presented(&json!({
            "iss": NAMES[0], "aud": AUDIENCE, "sub": subject.to_string(), "jti": index,
            "iat": second(issued), "exp": second(issued + LIFETIME),
        })));
        let key = TokenKey::new(NAMES[0], &index);
        self.tokens.push(Token { subject, issued, key, seen: None, used: None, is_answered: [false; GATES] });
    }

    async fn tell_event(&self, gate: usize, (subject, at): (usize, i64)) {
        let event = json!({
            "type": "subject-revoked", "issuer": NAMES[0], "subject": subject.to_string(), "at": at as f64 / 1_000.0,
        });
        self.gates[gate].publish(&event.to_string(), self.moment(gate)).await.expect("it is not ahead");
    }

    /// A request, or the same one again when the shared store has answered.
    fn request(&mut self, gate: usize, token: usize, told: Option<FirstUse>) -> Result<(), Disagreement> {
        let seen = self.tokens[token].seen.get_or_insert(self.now);
        *seen = self.now.min(*seen);
        let asked = told.map_or(Asked::NOTHING, |told| Asked::NOTHING.told_first_use(told));
        match self.gates[gate].judge(&self.presented[token], asked, self.moment(gate)) {
            Verdict::Allow(_) if self.must_deny(token) => Err(self.disagree(gate, token, "passes")),
            Verdict::Allow(permit) => {
                let begun = self.gates[gate].begin(&permit, self.moment(gate));
                begun.map_err(|why| self.disagree(gate, token, &format!("not forwarded for {why:?}")))?;
                self.used(gate, token);
                self.count(if told.is_some() { "passes when answered" } else { "passes" });
                Ok(())
            }
            Verdict::Deny(denial) => match why(denial.reason) {
                Why::Ended if self.may_deny(token) => {
                    let by_first_use = !self.is_ended_by_issue(token);
                    self.count(if by_first_use { "ended by its first use" } else { "ended" });
                    Ok(())
                }
                Why::Unavailable if told == Some(FirstUse::Unknown) => {
                    self.count("not answered");
                    Ok(())
                }
                why => Err(self.disagree(gate, token, &format!("denied for {why:?}"))),
            },
            Verdict::Ask(Ask::FirstUse { token: key }) => {
                if told.is_some() || self.tokens[token].is_answered[gate] || !self.may_ask(token) {
                    return Err(self.disagree(
                        gate,
                        token,
                        "asked for what the gate knows, or need not know",
                    ));
                }
                let first = self.shared.get(&key).copied().map(Timestamp::from_millis);
                let told = first.map_or(FirstUse::Ordinary, FirstUse::At);
                self.waiting.push(Waiting { gate, token, told });
                Ok(())
            }
            Verdict::Ask(ask) => Err(self.disagree(gate, token, &format!("asked for {ask:?}"))),
        }
    }

    /// A request was forwarded. What the gate then tells the others is on its way.
    fn used(&mut self, gate: usize, token: usize) {
        let Token { issued, key, .. } = self.tokens[token];
        let first = self.tokens[token].used.get_or_insert(self.now);
        *first = self.now.min(*first);
        self.told.extend(
            self.gates[gate].first_use(key).filter(|first| *first < issued).map(|first| (key, first)),
        );
    }

    fn count(&mut self, what: &str) {
        *self.tally.entry(what.to_owned()).or_default() += 1;
    }

    // ---- what must be answered ----------------------------------------------------------------------------------

    fn events_of(&self, token: usize) -> impl Iterator<Item = i64> {
        let subject = self.tokens[token].subject;
        self.events.iter().filter(move |(whose, _)| *whose == subject).map(|(_, at)| *at)
    }

    fn is_ended_by_issue(&self, token: usize) -> bool {
        self.events_of(token).any(|at| second(at) >= second(self.tokens[token].issued))
    }

    /// Of the second of its first use it is not known which came first.
    fn must_deny(&self, token: usize) -> bool {
        let used = self.tokens[token].used;
        let mut events = self.events_of(token);
        self.is_ended_by_issue(token) || used.is_some_and(|used| events.any(|at| second(at) > second(used)))
    }

    /// A gate may also remember that it saw the token earlier, without forwarding anything.
    fn may_deny(&self, token: usize) -> bool {
        let Token { issued, seen, .. } = self.tokens[token];
        let earliest = seen.map_or(issued, |seen| seen.min(issued));
        self.events_of(token).any(|at| second(at) >= second(earliest))
    }

    fn may_ask(&self, token: usize) -> bool {
        let issued = self.tokens[token].issued;
        self.events_of(token).any(|at| second(at) >= second(issued - LEEWAY))
            && !self.is_ended_by_issue(token)
    }

    fn disagree(&self, gate: usize, token: usize, what: &str) -> Disagreement {
        let (found, events) = (&self.tokens[token], self.events_of(token).collect::<Vec<_>>());
        let shared = self.shared.get(&found.key);
        Disagreement(format!(
            "{what}: token {token} at gate {gate}\n{found:?}\nnow {}, events {events:?}, the shared store has {shared:?}",
            self.now
        ))
    }
}
