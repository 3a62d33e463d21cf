//! What can happen, and how often.

use crate::random::Random;

pub(crate) const SECOND: i64 = 1_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
pub(crate) const YEAR: i64 = 365 * DAY;

pub(crate) const ISSUERS: usize = 2;
const SUBJECTS: usize = 3;
const CLIENTS: usize = 2;

/// Everything that a reload may change and that verdicts depend on; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The idle timeout of each issuer's tokens.
    pub(crate) idle: [Option<i64>; ISSUERS],
    /// Whose timeout is that of `[sessions]`; the other has its own.
    pub(crate) common: usize,
    pub(crate) max_lifetime: [i64; ISSUERS],
    pub(crate) leeway: [i64; ISSUERS],
}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Roles {
        version: Option<u64>,
    },
    Subject,
    Client,
    Issuer,
    /// The token at this place.
    Token,
}

/// One thing that happens. Places in lists are counted from the newest, and wrap around, so that a script means
/// something when steps are taken out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// An issuer, whose clock is ahead by `skew`, makes a token.
    Issue {
        issuer: usize,
        subject: usize,
        client: usize,
        lifetime: i64,
        skew: i64,
        version: Option<u64>,
    },
    /// A request; `forwarded` after so much time, or not at all.
    Request {
        token: usize,
        forwarded: Option<i64>,
    },
    /// A request that opens a stream.
    Open {
        token: usize,
    },
    /// A look at an open stream, on which bytes flowed or not.
    Stream {
        stream: usize,
        bytes: bool,
    },
    /// An event; without `ago` it happened when it is received.
    Happen {
        kind: Kind,
        issuer: usize,
        whose: usize,
        ago: Option<i64>,
    },
    /// An event is sent again.
    Repeat(usize),
    /// An event is taken back.
    Undo(usize),
    Wait(i64),
    /// The wall clock is wrong by so much from now on.
    Clock(i64),
    /// Last uses are written behind.
    Save,
    Sweep,
    Trim,
    Reload(Settings),
    /// The gate ends, `killed` or in order, and starts again after `down`, with the wall clock wrong by `clock`.
    Restart {
        killed: bool,
        down: i64,
        clock: i64,
    },
}

pub(crate) fn settings(random: &mut Random) -> Settings {
    let lifetime = |random: &mut Random| random.one_of(&[HOUR, HOUR, 12 * HOUR, DAY]);
    let leeway = |random: &mut Random| random.one_of(&[0, 30 * SECOND, 30 * SECOND, MINUTE]);
    let idle = |random: &mut Random| {
        random.one_of(&[None, Some(5 * MINUTE), Some(30 * MINUTE), Some(30 * MINUTE), Some(6 * HOUR)])
    };
    Settings {
        idle: [idle(random), idle(random)],
        common: random.index(ISSUERS),
        max_lifetime: [lifetime(random), lifetime(random)],
        leeway: [leeway(random), leeway(random)],
    }
}

/// How wrong a wall clock is: mostly not at all.
pub(crate) fn error(random: &mut Random) -> i64 {
    let size = match random.below(20) {
        0..=13 => return 0,
        14 => random.between(1, 30 * SECOND),
        15 => random.between(1, 10 * MINUTE),
        16 => random.between(MINUTE, 5 * HOUR),
        17 => random.between(HOUR, 3 * DAY),
        _ => random.between(DAY, 10 * YEAR),
    };
    if random.once_in(2) { size } else { -size }
}

fn wait(random: &mut Random, idle: Option<i64>) -> i64 {
    let idle = idle.unwrap_or(30 * MINUTE);
    match random.below(80) {
        0..=39 => random.between(0, 5 * SECOND),
        40..=61 => random.between(0, idle / 4),
        62..=69 => random.between(0, idle),
        70..=73 => idle + random.between(-1, 1),
        74 | 75 => idle + random.between(0, MINUTE),
        76 | 77 => random.between(0, 3 * HOUR),
        78 => random.between(0, DAY),
        _ => random.between(0, 3 * DAY),
    }
}

/// Mostly one that is not expired.
fn token(random: &mut Random, alive: &[usize]) -> usize {
    match alive {
        [_, ..] if !random.once_in(10) => alive[random.index(alive.len().min(6))],
        _ => random.index(24),
    }
}

fn kind(random: &mut Random) -> Kind {
    let version = (!random.once_in(3)).then(|| random.below(4));
    random.one_of(&[
        Kind::Roles { version },
        Kind::Subject,
        Kind::Client,
        Kind::Issuer,
        Kind::Token,
        Kind::Token,
        Kind::Subject,
    ])
}

/// `alive` are places of tokens that could pass, the newest first.
pub(crate) fn step(random: &mut Random, now: Settings, alive: &[usize]) -> Step {
    match random.below(1_000) {
        0..=79 => Step::Issue {
            issuer: random.index(ISSUERS),
            subject: random.index(SUBJECTS),
            client: random.index(CLIENTS),
            // Sometimes longer than the settings allow, which a reload may change.
            lifetime: random.one_of(&[10 * MINUTE, HOUR, HOUR, 12 * HOUR, DAY]).min(random.one_of(&[
                now.max_lifetime[0],
                now.max_lifetime[1],
                now.max_lifetime[0].min(now.max_lifetime[1]),
                DAY,
            ])),
            skew: random.between(-40, 40) * SECOND,
            version: (!random.once_in(3)).then(|| random.below(4)),
        },
        80..=639 => Step::Request {
            token: token(random, alive),
            forwarded: match random.below(20) {
                0 | 1 => None,
                2 => Some(random.between(0, 2 * MINUTE)),
                _ => Some(0),
            },
        },
        640..=649 => Step::Open { token: token(random, alive) },
        650..=699 => Step::Stream { stream: random.index(4), bytes: random.once_in(2) },
        700..=724 => Step::Happen {
            kind: kind(random),
            issuer: random.index(ISSUERS),
            whose: random.index(12),
            ago: (!random.once_in(3)).then(|| random.between(-30, 300) * SECOND),
        },
        725..=727 => Step::Repeat(random.index(8)),
        728..=735 => Step::Undo(random.index(8)),
        736..=925 => Step::Wait({
            let idle = random.one_of(&now.idle);
            wait(random, idle)
        }),
        926..=949 => Step::Clock(error(random)),
        950..=976 => Step::Save,
        977..=980 => Step::Sweep,
        981..=988 => Step::Trim,
        989..=994 => Step::Reload(settings(random)),
        _ => Step::Restart {
            killed: random.once_in(2),
            down: if random.once_in(3) {
                random.between(0, 8 * HOUR)
            } else {
                random.between(0, 10 * SECOND)
            },
            clock: error(random),
        },
    }
}

/// The place in a list that is so many before the last; of an empty list there is none.
pub(crate) fn from_newest<T>(list: &[T], nth: usize) -> Option<usize> {
    Some(list.len().checked_sub(1)? - nth % list.len())
}
