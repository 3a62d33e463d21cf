//! Gates that follow the event log of another, whose news arrive late and in any pieces.

use http::HeaderMap;
use portcullis::enforce::decide::{Asked, Verdict};
use portcullis::state::redis::ReplicaChange;
use serde_json::json;

use crate::gate::{self, AUDIENCE, Follower, Gate, NAMES};
use crate::random::Random;
use crate::search::{Disagreement, Tally, World};
use crate::steps::{DAY, MINUTE, Settings, from_newest};

const BEGIN: i64 = 1_800_000_000_123;
const FOLLOWERS: usize = 2;
const SETTINGS: Settings = Settings { idle: [None; 2], common: 0, max_lifetime: [DAY; 2], leeway: [0; 2] };

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Issue {
        subject: usize,
    },
    /// The leader ends the tokens of a subject, or one token.
    End {
        subject: Option<usize>,
        token: usize,
    },
    Undo(usize),
    /// So many of the news that a follower has not had yet arrive, in pieces of this length.
    Arrive {
        follower: usize,
        many: usize,
        piece: usize,
    },
    Wait(i64),
}

#[derive(Debug, Clone, Copy)]
struct Event {
    subject: Option<usize>,
    token: usize,
    at: i64,
    /// The places in the news of the event and of its undoing.
    told: usize,
    untold: Option<usize>,
}

pub(crate) struct Followers {
    leader: Gate,
    followers: Vec<Follower>,
    /// How many of the news each has had.
    had: [usize; FOLLOWERS],
    news: Vec<ReplicaChange>,
    events: Vec<Event>,
    sequences: Vec<u64>,
    /// Subject and issue of each token.
    tokens: Vec<(usize, i64)>,
    presented: Vec<HeaderMap>,
    now: i64,
    tally: Tally,
}

impl World for Followers {
    type Beginning = ();
    type Step = Step;

    fn beginning(_random: &mut Random) {}

    async fn new((): ()) -> Self {
        let leader = Gate::replica(SETTINGS, gate::moment(BEGIN, 0)).await;
        let mut followers = Vec::new();
        for _ in 0..FOLLOWERS {
            followers.push(leader.follower().await);
        }
        Self {
            leader,
            followers,
            had: [0; FOLLOWERS],
            news: Vec::new(),
            events: Vec::new(),
            sequences: Vec::new(),
            tokens: Vec::new(),
            presented: Vec::new(),
            now: BEGIN,
            tally: Tally::new(),
        }
    }

    fn step(&self, random: &mut Random) -> Step {
        match random.below(20) {
            0..=3 => Step::Issue { subject: random.index(3) },
            4..=7 => {
                Step::End { subject: (!random.once_in(3)).then(|| random.index(3)), token: random.index(6) }
            }
            8 | 9 => Step::Undo(random.index(6)),
            10..=15 => Step::Arrive {
                follower: random.index(FOLLOWERS),
                many: random.index(6),
                piece: 1 + random.index(4),
            },
            _ => Step::Wait(random.between(0, MINUTE)),
        }
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    async fn take(&mut self, step: Step) -> Result<(), Disagreement> {
        let now = gate::moment(self.now, self.now - BEGIN);
        match step {
            Step::Issue { subject } => {
                let (index, issued) = (self.presented.len(), self.now.div_euclid(1_000) * 1_000);
                self.presented.push(gate::presented(&json!({
                    "iss": NAMES[0], "aud": AUDIENCE, "sub": subject.to_string(), "jti": index.to_string(),
                    "iat": issued / 1_000, "exp": (issued + DAY) / 1_000,
                })));
                self.tokens.push((subject, issued));
            }
            Step::End { subject, token } => {
                let Some(token) = from_newest(&self.presented, token) else { return Ok(()) };
                let event = match subject {
                    Some(subject) => json!({"type": "subject-revoked", "subject": subject.to_string()}),
                    None => json!({"type": "token-revoked", "jti": token.to_string()}),
                };
                let mut event = event;
                event["issuer"] = json!(NAMES[0]);
                let sequence = self.leader.publish(&event.to_string(), now).await.unwrap();
                if !self.sequences.contains(&sequence) {
                    let told = self.news.len();
                    self.news.push(self.leader.news(sequence).await);
                    self.sequences.push(sequence);
                    self.events.push(Event { subject, token, at: self.now, told, untold: None });
                }
            }
            Step::Undo(event) => {
                let Some(event) = from_newest(&self.events, event) else { return Ok(()) };
                if self.events[event].untold.is_none() {
                    assert!(self.leader.undo(self.sequences[event], now).await);
                    self.events[event].untold = Some(self.news.len());
                    self.news.push(ReplicaChange::Undone(self.sequences[event]));
                }
            }
            Step::Arrive { follower, many, piece } => {
                let (from, all) = (self.had[follower], self.news.len());
                let until = (from + many).min(all);
                for piece in self.news[from..until].chunks(piece) {
                    self.followers[follower].hear(piece.to_vec()).await;
                }
                self.had[follower] = until;
            }
            Step::Wait(time) => self.now += time,
        }
        self.compare()
    }
}

impl Followers {
    /// Every follower, by every token that is young enough to be interesting.
    fn compare(&mut self) -> Result<(), Disagreement> {
        let now = gate::moment(self.now, self.now - BEGIN);
        for (token, presented) in self.presented.iter().enumerate().rev().take(4) {
            let (subject, issued) = self.tokens[token];
            if self.now >= issued + DAY {
                continue;
            }
            for (follower, had) in self.followers.iter().zip(self.had) {
                let meant = self.events.iter().filter(|event| match event.subject {
                    Some(meant) => meant == subject && issued / 1_000 <= event.at / 1_000,
                    None => event.token == token,
                });
                let (mut must, mut may, mut restored) = (false, false, false);
                for event in meant {
                    must |= event.told < had && event.untold.is_none();
                    // What was acknowledged may be in force before its news arrive: taking back another asks the store.
                    may |= event.untold.is_none_or(|untold| untold >= had);
                    restored |= event.untold.is_some_and(|untold| untold < had);
                }
                let passes = matches!(follower.judge(presented, Asked::NOTHING, now), Verdict::Allow(_));
                if (passes && must) || (!passes && !may) {
                    return Err(Disagreement(format!(
                        "token {token} passes: {passes}, must be ended: {must}, may be: {may}; {:?}",
                        self.events
                    )));
                }
                let said = if !passes {
                    "ended"
                } else if restored {
                    "restored"
                } else {
                    "passes"
                };
                *self.tally.entry(said.to_owned()).or_default() += 1;
            }
        }
        Ok(())
    }
}
