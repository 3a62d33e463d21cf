//! Several gates on one shared store that answers late, not at all, or in another order, against a plain specification.
//!
//! The shared store is played by the rules of its scripts: what it is asked is what decisions ask, what it is told is what
//! flushes write.

use std::collections::HashMap;

use http::HeaderMap;
use portcullis::enforce::decide::{Ask, Asked, Verdict};
use portcullis::identity::TokenKey;
use portcullis::state::redis::SharedUse;
use portcullis::time::{Now, Timestamp};
use serde_json::json;

use crate::gate::{self, AUDIENCE, Gate, NAMES, why};
use crate::random::Random;
use crate::search::{Disagreement, Tally, World};
use crate::specification::Why;
use crate::steps::{DAY, HOUR, ISSUERS, MINUTE, SECOND, Settings, from_newest};

const GATES: usize = 3;
const BEGIN: i64 = 1_800_000_000_123;
const LIFETIME: i64 = 12 * HOUR;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// An issuer makes a token.
    Issue(usize),
    Request {
        gate: usize,
        token: usize,
    },
    /// The shared store's answer to a request that waits arrives; or is lost.
    Answer {
        waiting: usize,
        lost: bool,
    },
    /// A gate writes its last uses, which arrive later.
    Flush(usize),
    /// Last uses arrive, in any order; some again later.
    Arrive {
        flush: usize,
        again: bool,
    },
    /// A gate ends and another starts in its place, with an empty table.
    Restart(usize),
    Wait(i64),
}

/// What the shared store keeps of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    LastUsed(i64),
    Over,
}

/// A request between its question and the answer.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    gate: usize,
    token: usize,
    told: SharedUse,
    asked_at: i64,
}

#[derive(Debug, Clone)]
struct Token {
    issuer: usize,
    issued: i64,
    /// The last request forwarded with it, by any gate, and by each since it started.
    last_use: Option<i64>,
    here: [Option<i64>; GATES],
    key: Option<TokenKey>,
}

pub(crate) struct Fleet {
    settings: Settings,
    gates: Vec<Gate>,
    /// When each gate's monotonic clock was zero.
    booted: [i64; GATES],
    now: i64,
    tokens: Vec<Token>,
    presented: Vec<HeaderMap>,
    shared: HashMap<TokenKey, Kept>,
    waiting: Vec<Waiting>,
    flushes: Vec<Vec<(TokenKey, i64)>>,
    tally: Tally,
}

impl World for Fleet {
    /// The idle timeouts.
    type Beginning = [i64; ISSUERS];
    type Step = Step;

    fn beginning(random: &mut Random) -> [i64; ISSUERS] {
        random.one_of(&[[5 * MINUTE; 2], [30 * MINUTE; 2], [5 * MINUTE, 30 * MINUTE], [2 * HOUR, 5 * MINUTE]])
    }

    async fn new(idle: [i64; ISSUERS]) -> Self {
        let settings = Settings { idle: idle.map(Some), common: 0, max_lifetime: [DAY; 2], leeway: [0; 2] };
        let mut gates = Vec::new();
        for _ in 0..GATES {
            gates.push(Gate::replica(settings, gate::moment(BEGIN, 0)).await);
        }
        Self {
            settings,
            gates,
            booted: [BEGIN; GATES],
            now: BEGIN,
            tokens: Vec::new(),
            presented: Vec::new(),
            shared: HashMap::new(),
            waiting: Vec::new(),
            flushes: Vec::new(),
            tally: Tally::new(),
        }
    }

    fn step(&self, random: &mut Random) -> Step {
        match random.below(100) {
            0..=2 => Step::Issue(random.index(ISSUERS)),
            // Mostly at the first gate, so that the others hear of uses that they have not seen.
            3..=44 => Step::Request { gate: 0, token: random.index(3) },
            45..=59 => Step::Request { gate: random.index(GATES), token: random.index(5) },
            60..=71 => Step::Answer { waiting: random.index(3), lost: random.once_in(10) },
            72..=77 => Step::Flush(if random.once_in(2) { 0 } else { random.index(GATES) }),
            78..=84 => Step::Arrive { flush: random.index(4), again: random.once_in(4) },
            85 => Step::Restart(random.index(GATES)),
            _ => {
                let idle = random.one_of(&self.settings.idle).unwrap_or(0);
                Step::Wait(match random.below(24) {
                    0..=9 => random.between(0, 10 * SECOND),
                    10..=21 => random.between(0, idle / 3),
                    22 => idle + random.between(-1, 1),
                    _ => random.between(0, idle),
                })
            }
        }
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    async fn take(&mut self, step: Step) -> Result<(), Disagreement> {
        match step {
            Step::Issue(issuer) => {
                let (index, issued) = (self.presented.len(), self.now.div_euclid(1_000) * 1_000);
                self.presented.push(gate::presented(&json!({
                    "iss": NAMES[issuer], "aud": AUDIENCE, "sub": "alice", "jti": index.to_string(),
                    "iat": issued / 1_000, "exp": (issued + LIFETIME) / 1_000,
                })));
                self.tokens.push(Token { issuer, issued, last_use: None, here: [None; GATES], key: None });
            }
            Step::Request { gate, token } => {
                if let Some(token) = from_newest(&self.presented, token) {
                    self.request(gate, token)?;
                }
            }
            Step::Answer { waiting, lost } => {
                if let Some(waiting) = from_newest(&self.waiting, waiting) {
                    let Waiting { gate, token, told, asked_at } = self.waiting.remove(waiting);
                    let told = if lost { SharedUse::Unknown } else { told };
                    self.answered(gate, token, told, asked_at)?;
                }
            }
            Step::Flush(gate) => {
                let rows = self.gates[gate].flush().await;
                self.flushes.push(rows);
            }
            Step::Arrive { flush, again } => {
                if let Some(flush) = from_newest(&self.flushes, flush) {
                    let rows = if again { self.flushes[flush].clone() } else { self.flushes.remove(flush) };
                    rows.into_iter().for_each(|(token, at)| self.keep(token, at));
                }
            }
            Step::Restart(gate) => {
                self.booted[gate] = self.now;
                self.gates[gate] = Gate::replica(self.settings, self.moment(gate)).await;
                self.waiting.retain(|waiting| waiting.gate != gate);
                self.tokens.iter_mut().for_each(|token| token.here[gate] = None);
            }
            Step::Wait(time) => self.now += time,
        }
        Ok(())
    }
}

impl Fleet {
    fn moment(&self, gate: usize) -> Now {
        gate::moment(self.now, self.now - self.booted[gate])
    }

    fn count(&mut self, what: &str) {
        *self.tally.entry(what.to_owned()).or_default() += 1;
    }

    /// The script that keeps a last use: never backwards, and not over the mark of being idle.
    fn keep(&mut self, token: TokenKey, at: i64) {
        let kept = self.shared.entry(token).or_insert(Kept::LastUsed(at));
        if let Kept::LastUsed(before) = kept {
            *before = at.max(*before);
        }
    }

    /// The script that looks for one: where everybody agrees that the token is idle it is marked so, for good.
    fn look(&mut self, token: usize, key: TokenKey, known: i64) -> SharedUse {
        let last = match self.shared.get(&key) {
            Some(Kept::Over) => return SharedUse::Over,
            Some(Kept::LastUsed(at)) => known.max(*at),
            None => known,
        };
        if self.now - last > self.idle(token) {
            self.shared.insert(key, Kept::Over);
            return SharedUse::Over;
        }
        SharedUse::LastUsed(Timestamp::from_millis(last))
    }

    fn request(&mut self, gate: usize, token: usize) -> Result<(), Disagreement> {
        if self.now >= self.tokens[token].issued + LIFETIME {
            return Ok(());
        }
        match self.gates[gate].judge(&self.presented[token], Asked::NOTHING, self.moment(gate)) {
            Verdict::Allow(permit) => {
                // Without a question: the gate knows of a use, or of the issue, that is recent enough.
                let token_ = &self.tokens[token];
                let known = token_.here[gate].unwrap_or(token_.issued).max(token_.issued);
                let learned = token_.last_use.unwrap_or(known);
                if self.now - known.max(learned) > self.idle(token) {
                    return Err(self.disagree(gate, token, "passes unasked"));
                }
                self.forward(gate, token, &permit, "passes")
            }
            Verdict::Deny(denial) => {
                let idle_here = self.is_idle_here(gate, token);
                match why(denial.reason) {
                    Why::Idle if idle_here && self.is_over(token) => {
                        self.count("idle");
                        Ok(())
                    }
                    _ => Err(self.disagree(gate, token, &format!("denied unasked for {denial:?}"))),
                }
            }
            Verdict::Ask(Ask::Session { token: key, issuer, last_used_at }) => {
                if usize::from(issuer.0) != self.tokens[token].issuer {
                    return Err(self.disagree(gate, token, "asked for the token of another issuer"));
                }
                if !self.is_idle_here(gate, token) {
                    return Err(self.disagree(gate, token, "asked for what the gate knows"));
                }
                self.tokens[token].key = Some(key);
                let told = self.look(token, key, last_used_at.as_millis());
                self.waiting.push(Waiting { gate, token, told, asked_at: self.now });
                Ok(())
            }
            Verdict::Ask(ask) => Err(self.disagree(gate, token, &format!("asked for {ask:?}"))),
        }
    }

    fn answered(
        &mut self,
        gate: usize,
        token: usize,
        told: SharedUse,
        asked_at: i64,
    ) -> Result<(), Disagreement> {
        if self.now >= self.tokens[token].issued + LIFETIME {
            return Ok(());
        }
        let here = !self.is_idle_here(gate, token);
        let verdict =
            self.gates[gate].judge(&self.presented[token], Asked::NOTHING.told(told), self.moment(gate));
        match (verdict, told) {
            (Verdict::Allow(permit), _) if here => self.forward(gate, token, &permit, "passes"),
            (Verdict::Allow(permit), SharedUse::LastUsed(at)) => {
                // As of the question; the answer may have been under way for a while.
                if asked_at - at.as_millis() > self.idle(token) {
                    return Err(self.disagree(gate, token, "passes, and was idle when it was asked about"));
                }
                self.forward(gate, token, &permit, "passes after a look-up")
            }
            (Verdict::Deny(denial), SharedUse::Over) if why(denial.reason) == Why::Idle => {
                self.count("denied after a look-up");
                Ok(())
            }
            (Verdict::Deny(denial), SharedUse::Unknown) if why(denial.reason) == Why::Unavailable => {
                self.count("not answered");
                Ok(())
            }
            // Told so long ago that it is idle by now.
            (Verdict::Deny(denial), SharedUse::LastUsed(at))
                if why(denial.reason) == Why::Idle && self.now - at.as_millis() > self.idle(token) =>
            {
                self.count("idle");
                Ok(())
            }
            (Verdict::Deny(denial), _) if why(denial.reason) == Why::Idle && self.is_over(token) => {
                self.count("idle");
                Ok(())
            }
            (verdict, told) => Err(self.disagree(gate, token, &format!("told {told:?}: {verdict:?}"))),
        }
    }

    fn forward(
        &mut self,
        gate: usize,
        token: usize,
        permit: &portcullis::enforce::decide::Permit,
        what: &str,
    ) -> Result<(), Disagreement> {
        if let Err(why) = self.gates[gate].begin(permit, self.moment(gate)) {
            return Err(self.disagree(gate, token, &format!("not forwarded for {why:?}")));
        }
        self.count(what);
        let (now, token) = (self.now, &mut self.tokens[token]);
        token.last_use = Some(now);
        token.here[gate] = Some(now);
        Ok(())
    }

    /// How long a token may be unused.
    fn idle(&self, token: usize) -> i64 {
        self.settings.idle[self.tokens[token].issuer].unwrap_or(i64::MAX)
    }

    /// Whether the gate alone would call it idle.
    fn is_idle_here(&self, gate: usize, token: usize) -> bool {
        let Token { issued, here, .. } = &self.tokens[token];
        self.now - here[gate].unwrap_or(*issued).max(*issued) > self.idle(token)
    }

    /// Whether the shared store has marked it idle.
    fn is_over(&self, token: usize) -> bool {
        self.tokens[token].key.is_some_and(|key| self.shared.get(&key) == Some(&Kept::Over))
    }

    fn disagree(&self, gate: usize, token: usize, what: &str) -> Disagreement {
        let token_ = &self.tokens[token];
        let shared = token_.key.and_then(|key| self.shared.get(&key));
        Disagreement(format!(
            "{what}: token {token} at gate {gate}\n{token_:?}\nnow {}, idle timeout {}, the shared store has {shared:?}",
            self.now,
            self.idle(token)
        ))
    }
}
