//! What a gate must answer, in plain words and numbers: nothing of the product is used here.
//!
//! Time is true time, in milliseconds; what the gate's wall clock says differs from it by `error`. A question has one of
//! three answers: the token must pass, must not, or either will do, which is so only inside the tolerances written here.

use crate::steps::{ISSUERS, Kind, MINUTE, SECOND, Settings};

/// Why a request was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Expired,
    FromTheFuture,
    TooLongLived,
    /// By an event.
    Ended,
    /// From before what the gate knows about.
    BeforeState,
    Idle,
    /// The shared store does not say.
    Unavailable,
}

/// A moment as the gate could know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// What the wall clock said.
    wall: i64,
    /// Whether it was right.
    is_right: bool,
    /// How long gates had been running, all together.
    ran: i64,
    /// How much of that may have been forgotten in kills.
    lost: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) issuer: usize,
    pub(crate) subject: usize,
    pub(crate) client: usize,
    pub(crate) version: Option<u64>,
    /// `iat` and `exp`, by the issuer's clock.
    pub(crate) issued: i64,
    pub(crate) expires: i64,
    /// The earliest moment, by the wall clock, at which the gate saw it.
    first_seen: i64,
    /// First and last request that was forwarded with it, as this gate knows; and as the store does.
    uses: Option<(Stamp, Stamp)>,
    saved: Option<(Stamp, Stamp)>,
    /// The last use that really happened.
    last_use: Option<Stamp>,
    /// It was idle, beyond doubt: for good.
    is_over: bool,
    /// It may have been idle when the gate started, which then does not know it any more.
    is_doubtful: bool,
    /// It was idle when the gate looked for such tokens, and may have left memory.
    is_swept: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    kind: Kind,
    issuer: usize,
    whose: usize,
    /// Up to when tokens are meant.
    at: i64,
    /// When it was received, in true time.
    received: i64,
    pub(crate) undone: bool,
}

/// The idle timeout of an issuer's tokens grew.
#[derive(Debug, Clone, Copy)]
struct Growth {
    issuer: usize,
    old: i64,
    when: Stamp,
    /// The store knows of it.
    is_saved: bool,
    /// In this process, whose monotonic clock says exactly when.
    is_here: bool,
}

#[derive(Debug)]
pub(crate) struct Specification {
    pub(crate) now: i64,
    /// By how much the wall clock is wrong.
    pub(crate) error: i64,
    pub(crate) settings: Settings,
    pub(crate) tokens: Vec<Token>,
    pub(crate) events: Vec<Event>,
    ran: i64,
    /// Running time that is not written down yet.
    uncounted: i64,
    lost: i64,
    /// When the store was created, by the wall clock; a clock that was ahead then is found out later.
    created: i64,
    /// The shortest time that events of an issuer were kept for.
    shortest: [i64; 2],
    growths: Vec<Growth>,
    /// The timeouts that the store knows of, when they are not those in force.
    saved_idle: [Option<i64>; ISSUERS],
}

/// How much longer than tokens live their events are kept.
const MARGIN: i64 = MINUTE;

impl Specification {
    pub(crate) fn new(now: i64, error: i64, settings: Settings) -> Self {
        let mut new = Self {
            now,
            error,
            settings,
            tokens: Vec::new(),
            events: Vec::new(),
            ran: 0,
            uncounted: 0,
            lost: 0,
            created: now + error,
            shortest: [i64::MAX; 2],
            growths: Vec::new(),
            saved_idle: settings.idle,
        };
        new.note_retention();
        new
    }

    fn note_retention(&mut self) {
        for issuer in 0..self.shortest.len() {
            let kept = self.settings.max_lifetime[issuer] + 2 * self.settings.leeway[issuer] + MARGIN;
            self.shortest[issuer] = self.shortest[issuer].min(kept);
        }
    }

    pub(crate) fn wall(&self) -> i64 {
        self.now + self.error
    }

    fn stamp(&self) -> Stamp {
        Stamp { wall: self.wall(), is_right: self.error == 0, ran: self.ran, lost: self.lost }
    }

    // ---- what happens -------------------------------------------------------------------------------------------

    pub(crate) fn passes(&mut self, time: i64) {
        self.now += time;
        self.ran += time;
        self.uncounted += time;
        self.find_idle();
    }

    pub(crate) fn issued(
        &mut self,
        issuer: usize,
        subject: usize,
        client: usize,
        lifetime: i64,
        skew: i64,
        version: Option<u64>,
    ) -> &Token {
        // An issuer's clock is wrong by its leeway at most.
        let leeway = self.settings.leeway[issuer];
        let issued = (self.now + skew.clamp(-leeway, leeway)).div_euclid(1_000) * 1_000;
        self.tokens.push(Token {
            issuer,
            subject,
            client,
            version,
            issued,
            expires: issued + lifetime,
            first_seen: i64::MAX,
            uses: None,
            saved: None,
            last_use: None,
            is_over: false,
            is_doubtful: false,
            is_swept: false,
        });
        &self.tokens[self.tokens.len() - 1]
    }

    pub(crate) fn seen(&mut self, token: usize) {
        let wall = self.wall();
        self.tokens[token].first_seen = self.tokens[token].first_seen.min(wall);
    }

    pub(crate) fn used(&mut self, token: usize) {
        let now = self.stamp();
        let token = &mut self.tokens[token];
        let (first, last) = token.uses.unwrap_or((now, now));
        // The wall clock may have stepped back since; the later of both counts.
        let wall = last.wall.max(now.wall);
        token.uses = Some((first, Stamp { wall, ..now }));
        token.last_use = Some(now);
        token.is_doubtful = false;
        if token.is_swept {
            // A clock that is behind let it pass: it is in use again.
            (token.is_swept, token.is_over) = (false, false);
        }
    }

    /// An event was acknowledged.
    pub(crate) fn happened(&mut self, kind: Kind, issuer: usize, whose: usize, at: i64) {
        let received = self.now;
        self.events.push(Event { kind, issuer, whose, at, received, undone: false });
    }

    /// An event was sent once more, after it was forgotten: it happens anew.
    pub(crate) fn again(&mut self, place: usize) {
        let event = Event { undone: false, received: self.now, ..self.events[place].clone() };
        self.events.push(event);
    }

    pub(crate) fn undone(&mut self, place: usize, undone: bool) {
        self.counted();
        self.events[place].undone |= undone;
    }

    /// Whether it was idle beyond doubt, and not dead either.
    pub(crate) fn is_over(&self, token: usize) -> bool {
        let token = &self.tokens[token];
        self.is_known_to_be_over(token) && self.is_alive(token)
    }

    /// What left memory goes by its issue, which is longer ago: only a clock that is behind can then let it pass.
    fn is_known_to_be_over(&self, token: &Token) -> bool {
        token.is_over && !(token.is_swept && self.error < 0)
    }

    /// The gate looked for idle tokens. It lets one leave only if that is idle by its issue, too.
    pub(crate) fn swept(&mut self) {
        let (wall, idle) = (self.wall(), self.settings.idle);
        for token in &mut self.tokens {
            let idle = idle[token.issuer].unwrap_or(i64::MAX);
            token.is_swept |= token.is_over && wall - token.issued > idle;
        }
    }

    /// The places of those that could pass, counted from the newest.
    pub(crate) fn alive(&self) -> Vec<usize> {
        let could_pass = |token: &&Token| self.is_alive(token) && !self.is_too_long_lived(token);
        let newest = self.tokens.iter().rev().enumerate();
        newest.filter(|(_, token)| could_pass(token)).map(|(place, _)| place).collect()
    }

    /// By its own claims and true time. Afterwards only a clock that is behind could let it pass, and nothing need know
    /// any more why it must not.
    fn is_alive(&self, token: &Token) -> bool {
        self.now <= token.expires + self.settings.leeway[token.issuer]
    }

    /// What a disagreement about a token is about.
    pub(crate) fn describe(&self, token: usize) -> String {
        let events: Vec<_> =
            self.events.iter().filter(|event| event.issuer == self.tokens[token].issuer).collect();
        format!(
            "{:?}\ntrue time {}, wall clock wrong by {}, gates ran for {} of which {} may be lost\n{:?}\nof the issuer: {events:?}\n{:?}",
            self.tokens[token], self.now, self.error, self.ran, self.lost, self.settings, self.growths
        )
    }

    /// The gate wrote its running time down.
    pub(crate) fn counted(&mut self) {
        self.uncounted = 0;
    }

    pub(crate) fn saved(&mut self) {
        for token in &mut self.tokens {
            token.saved = token.uses;
        }
        self.saved_idle = self.settings.idle;
        self.growths.iter_mut().for_each(|growth| growth.is_saved = true);
        // A creation that lies ahead is found out by the way.
        self.created = self.created.min(self.wall());
    }

    pub(crate) fn reloaded(&mut self, settings: Settings) {
        self.find_idle();
        let old = self.settings.idle;
        self.grow(old, settings.idle);
        self.settings = settings;
        self.note_retention();
    }

    fn grow(&mut self, old: [Option<i64>; ISSUERS], new: [Option<i64>; ISSUERS]) {
        for (issuer, (old, new)) in old.into_iter().zip(new).enumerate() {
            if let Some(old) = old.filter(|old| new.is_none_or(|new| new > *old)) {
                let when = self.stamp();
                self.growths.push(Growth { issuer, old, when, is_saved: false, is_here: true });
            }
        }
    }

    /// When the timeout of this token grew.
    fn growths(&self, token: &Token) -> impl Iterator<Item = &Growth> {
        self.growths.iter().filter(|growth| growth.issuer == token.issuer)
    }

    pub(crate) fn restarted(&mut self, killed: bool, down: i64, error: i64) {
        if killed {
            self.lost += self.uncounted;
            for token in &mut self.tokens {
                token.uses = token.saved;
                // What was found idle in the running time that is lost is not idle any more for a gate that cannot know.
                token.is_over = false;
            }
            self.find_idle();
            // What the next gate does not know of, it can hold against no token.
            self.growths.iter_mut().for_each(|growth| growth.when.is_right &= growth.is_saved);
        } else {
            self.saved();
        }
        self.counted();
        self.now += down;
        self.error = error;
        self.growths.iter_mut().for_each(|growth| growth.is_here = false);
        // What the store does not know of yet happens at the start.
        let (old, new) = (self.saved_idle, self.settings.idle);
        self.grow(old, new);
        let idle = |issuer: usize| old[issuer].unwrap_or(i64::MAX).min(new[issuer].unwrap_or(i64::MAX));
        self.forget_idle(idle);
        // The gate that starts writes the timeout it goes by.
        self.saved_idle = self.settings.idle;
        self.growths.iter_mut().for_each(|growth| growth.is_saved = true);
    }

    /// A gate that starts takes no idle tokens into memory: without a session they go by their issue again, which is
    /// longer ago. Only a clock that is behind can then let one pass, as it lets expired ones.
    fn forget_idle(&mut self, idle: impl Fn(usize) -> i64) {
        for token in &mut self.tokens {
            if let Some((_, last)) = token.uses
                && (token.is_over || self.ran - last.ran > idle(token.issuer))
            {
                (token.uses, token.is_over, token.is_doubtful) = (None, false, true);
            }
            token.is_swept = false;
        }
    }

    /// Marks what is idle beyond doubt: gates have been running for longer than the timeout since the last use.
    fn find_idle(&mut self) {
        let (ran, lost) = (self.ran, self.lost);
        for token in &mut self.tokens {
            let idle = self.settings.idle[token.issuer];
            if let (Some(last), true, Some(idle)) = (token.last_use, token.uses.is_some(), idle) {
                token.is_over |= ran - last.ran - (lost - last.lost) > idle;
            }
        }
    }

    // ---- what must be answered ----------------------------------------------------------------------------------

    /// Why the token must be denied now, if it must.
    pub(crate) fn must_deny(&self, index: usize) -> Option<&'static str> {
        let token = &self.tokens[index];
        if self.is_expired(token) {
            return Some("it is expired by the wall clock");
        }
        if self.is_from_the_future(token) {
            return Some("it is from the future by the wall clock");
        }
        if self.is_too_long_lived(token) {
            return Some("it lives longer than max_lifetime");
        }
        if !self.is_alive(token) {
            return None;
        }
        // A version reaches tokens whenever they are issued, and so does a time that a wrong clock gave; the event is kept
        // for the tokens that there were when it came.
        let is_kept_for =
            |event: &Event| token.issued <= event.received.max(event.at.min(event.received + MINUTE));
        let mut ended = self.events.iter().filter(|event| is_kept_for(event));
        if ended.any(|event| self.ends(event, index, certain_issue(token))) {
            return Some("an event ended it");
        }
        if self.is_known_to_be_over(token) {
            return Some("it was idle");
        }
        self.is_idle(token).then_some("it is idle")
    }

    /// Whether it may be denied for this.
    pub(crate) fn may_deny(&self, index: usize, why: Why) -> bool {
        let token = &self.tokens[index];
        match why {
            Why::Expired => self.is_expired(token),
            Why::FromTheFuture => self.is_from_the_future(token),
            Why::TooLongLived => self.is_too_long_lived(token),
            Why::Ended => {
                let earliest = token.issued.min(token.first_seen);
                self.events.iter().any(|event| self.ends(event, index, earliest))
            }
            Why::BeforeState => {
                let earliest = token.issued.min(token.first_seen);
                let lives = token.expires - token.issued + self.settings.leeway[token.issuer];
                // Of the tokens that live longer than events were kept for once, it is not known which were ended.
                earliest.div_euclid(1_000) <= self.created.div_euclid(1_000)
                    || lives > self.shortest[token.issuer]
            }
            Why::Idle => token.is_over || token.is_doubtful || self.seems_idle(token),
            Why::Unavailable => false,
        }
    }

    fn is_expired(&self, token: &Token) -> bool {
        token.expires + self.settings.leeway[token.issuer] <= self.wall()
    }

    fn is_from_the_future(&self, token: &Token) -> bool {
        token.issued > self.wall() + self.settings.leeway[token.issuer]
    }

    fn is_too_long_lived(&self, token: &Token) -> bool {
        token.expires - token.issued > self.settings.max_lifetime[token.issuer]
    }

    fn ends(&self, event: &Event, index: usize, issued: i64) -> bool {
        let token = &self.tokens[index];
        let is_before = issued.div_euclid(1_000) <= event.at.div_euclid(1_000);
        let is_meant = match event.kind {
            Kind::Token => return event.whose == index && !event.undone,
            Kind::Roles { .. } | Kind::Subject => event.whose == token.subject,
            Kind::Client => event.whose == token.client,
            Kind::Issuer => true,
        };
        let is_ended = match (event.kind, token.version) {
            (Kind::Roles { version: Some(now) }, Some(then)) => then < now,
            _ => is_before,
        };
        event.issuer == token.issuer && is_meant && is_ended && !event.undone
    }

    /// Idle beyond doubt, by either clock.
    fn is_idle(&self, token: &Token) -> bool {
        let Some(idle) = self.settings.idle[token.issuer] else { return self.was_idle_unused(token) };
        match (token.uses, token.last_use) {
            // A session that the gate knows. Its last use may be later than the store knows, not earlier.
            (Some((_, known)), Some(last)) => {
                self.wall() - known.wall.max(last.wall).max(token.issued) > idle
            }
            (None, Some(last)) if token.is_doubtful => {
                let saved = token.saved.map_or(last.wall, |(_, saved)| saved.wall);
                self.wall() - saved.max(last.wall).max(token.issued) > idle
            }
            _ => self.wall() - token.issued > idle || self.was_idle_unused(token),
        }
    }

    /// A token that was never used goes by its issue and the wall clock; it was idle before the timeout grew. That is
    /// certain where the clock is right now and was then, or the same gate runs on.
    fn was_idle_unused(&self, token: &Token) -> bool {
        token.uses.is_none()
            && token.last_use.is_none()
            && self.error == 0
            && self.growths(token).any(|growth| match growth.is_here {
                true => self.wall() - (self.ran - growth.when.ran) - token.issued > growth.old,
                false => growth.when.is_right && growth.when.wall - token.issued > growth.old,
            })
    }

    /// Idle as far as the gate can know.
    fn seems_idle(&self, token: &Token) -> bool {
        let idle = self.settings.idle[token.issuer].unwrap_or(i64::MAX);
        let (wall, ran) = (self.wall(), self.ran);
        match token.uses {
            None => {
                // When the timeout grew, by the clock as it was then and, as far as running time tells, as it is now.
                let grown = |growth: &Growth| {
                    let ran = ran - growth.when.ran - (self.lost - growth.when.lost);
                    if growth.is_here { wall - ran } else { growth.when.wall.min(wall - ran) }
                };
                wall - token.issued > idle
                    || self.growths(token).any(|growth| grown(growth) - token.issued > growth.old)
            }
            Some((_, last)) => {
                let last_wall = last.wall.max(token.issued);
                wall - last_wall > idle
                    || ran - last.ran > idle
                    || self.growths(token).any(|growth| {
                        growth.when.ran >= last.ran
                            && (growth.when.wall - last_wall > growth.old
                                || growth.when.ran - last.ran > growth.old)
                    })
            }
        }
    }
}

/// When it was issued, as far as that is certain: not after its first use, if the clock was right then; of that the whole
/// second counts.
fn certain_issue(token: &Token) -> i64 {
    match token.uses {
        Some((first, _)) if first.is_right => token.issued.min(first.wall + SECOND),
        _ => token.issued,
    }
}
