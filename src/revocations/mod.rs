//! Revocations: cut-offs by subject, client and issuer, and revoked tokens.
//!
//! Pure rules behind a snapshot that readers load without waiting; one writer at a time. This room knows
//! neither where events come from nor where they are stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::identity::{AsIs, IssuerKey, Key};
use crate::time::{Now, Timestamp};

mod base;
mod facts;
mod recent;
pub mod rules;
mod table;

pub use facts::{Ended, EndedBy, Horizon, TokenFacts};
use recent::PARTS;
pub use rules::Ends;
use rules::{KeyRule, Rule, SubjectRule};
use table::{CutoffTable, SHARE};

/// Numbers of entries in a snapshot, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Subjects.
    pub subjects: usize,
    /// Clients.
    pub clients: usize,
    /// Login sessions.
    pub sessions: usize,
    /// Tokens.
    pub tokens: usize,
    /// Issuers.
    pub issuers: usize,
}

/// Everything that had been ended at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    generation: u64,
    not_before: Option<Timestamp>,
    horizons: Arc<HashMap<Key, Vec<Horizon>, AsIs>>,
    /// Horizons of a shared log, which does not say whom its removed events concerned.
    common_horizons: Arc<[Horizon]>,
    subjects: CutoffTable<SubjectRule>,
    clients: CutoffTable<KeyRule>,
    sessions: CutoffTable<KeyRule>,
    issuers: CutoffTable<KeyRule>,
    tokens: CutoffTable<KeyRule>,
}

impl Snapshot {
    fn new(not_before: Option<Timestamp>) -> Self {
        Self {
            generation: 0,
            not_before,
            horizons: Arc::default(),
            common_horizons: Arc::default(),
            subjects: CutoffTable::new(),
            clients: CutoffTable::new(),
            sessions: CutoffTable::new(),
            issuers: CutoffTable::new(),
            tokens: CutoffTable::new(),
        }
    }

    /// Counts changes that could end a token: while it is unchanged, a token in force stays in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The numbers of entries.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            subjects: self.subjects.len(),
            clients: self.clients.len(),
            sessions: self.sessions.len(),
            tokens: self.tokens.len(),
            issuers: self.issuers.len(),
        }
    }

    /// The time the store was created: nothing is known about tokens issued before this second.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// Decides whether a token was ended, and by what.
    #[must_use]
    pub fn judge(&self, facts: &TokenFacts, now: Now) -> Option<Ended> {
        self.judge_events(facts, facts.issued_at).or_else(|| {
            let is_forgotten = self.horizons(facts).any(|horizon| facts.issued_at <= horizon.reach(now));
            (self.precedes(facts) || is_forgotten).then_some(Ended::BeforeState)
        })
    }

    /// Whether a token that no event ended would have been ended by one if it had been issued at `issued_at`.
    #[must_use]
    pub fn would_end(&self, facts: &TokenFacts, issued_at: Timestamp) -> bool {
        self.judge_events(facts, issued_at).is_some()
    }

    fn judge_events(&self, facts: &TokenFacts, issued_at: Timestamp) -> Option<Ended> {
        if self.tokens.get(facts.token.0).is_some() {
            return Some(Ended::Token);
        }
        if self.session(facts).is_some_and(|rule| rule.revokes(issued_at)) {
            return Some(Ended::Session);
        }
        let subject = self.subject(facts);
        if subject.is_some_and(|rule| rule.revokes(issued_at)) {
            return Some(Ended::Subject);
        }
        let client = facts.client.and_then(|client| self.clients.get(client.0));
        if client.is_some_and(|rule| rule.revokes(issued_at)) {
            return Some(Ended::Client);
        }
        if self.issuers.get(facts.issuer.0).is_some_and(|rule| rule.revokes(issued_at)) {
            return Some(Ended::Issuer);
        }
        let outdated = subject.is_some_and(|rule| rule.outdates(issued_at, facts.role_version));
        outdated.then_some(Ended::Roles)
    }

    /// The combined rule of the subject under all its names.
    fn subject(&self, facts: &TokenFacts) -> Option<SubjectRule> {
        let rules = facts.subjects().filter_map(|subject| self.subjects.get(subject.0).copied());
        rules.reduce(SubjectRule::and)
    }

    fn session(&self, facts: &TokenFacts) -> Option<KeyRule> {
        let sessions = facts.names.iter().flat_map(|names| &names.sessions);
        sessions.filter_map(|session| self.sessions.get(session.0).copied()).reduce(KeyRule::and)
    }

    /// Whether a token in force stays in force until it expires as long as the [generation](Self::generation)
    /// is unchanged, whatever the clocks do: it expires before a horizon can reach it.
    #[must_use]
    pub fn is_lasting(&self, facts: &TokenFacts, expires_at: Timestamp) -> bool {
        let outlived = |horizon: &Horizon| facts.issued_at.plus(horizon.retention) >= expires_at;
        self.horizons(facts).all(outlived)
    }

    /// Whether the token is older than the store. The second in which the store was created is the first that
    /// it fully covers.
    fn precedes(&self, facts: &TokenFacts) -> bool {
        self.not_before.is_some_and(|created| facts.issued_at.as_secs() < created.as_secs())
    }

    fn horizons(&self, facts: &TokenFacts) -> impl Iterator<Item = &Horizon> {
        self.horizons.get(&facts.issuer.0).into_iter().flatten().chain(&*self.common_horizons)
    }

    /// The values that a verdict on an ended token rests on.
    #[must_use]
    pub fn grounds(&self, facts: &TokenFacts, ended: Ended, now: Now) -> EndedBy {
        let subject = self.subject(facts);
        let client = facts.client.and_then(|client| self.clients.get(client.0));
        let at = match ended {
            Ended::Token => None,
            Ended::Session => self.session(facts).map(|rule| rule.revoked_at()),
            Ended::Subject => subject.map(|rule| rule.revoked_at()),
            Ended::Client => client.map(|rule| rule.revoked_at()),
            Ended::Issuer => self.issuers.get(facts.issuer.0).map(|rule| rule.revoked_at()),
            Ended::Roles => subject.map(|rule| rule.changed_at(facts.role_version)),
            Ended::BeforeState if self.precedes(facts) => self.not_before,
            // The first moment that is fully covered.
            Ended::BeforeState => {
                let reached = self.horizons(facts).map(|horizon| horizon.reach(now)).max();
                reached.map(|reached| reached.plus(Duration::from_secs(1)))
            }
        };
        let role_version = subject.map(|rule| rule.role_version()).filter(|version| *version > 0);
        EndedBy { at, role_version: role_version.filter(|_| ended == Ended::Roles) }
    }

    fn apply(&mut self, ends: Ends) {
        match ends {
            Ends::Roles { subject, at, version } => {
                self.subjects.update(subject.0, |rule| rule.roles_changed(at, version));
            }
            Ends::Subject(subject, at) => self.subjects.update(subject.0, |rule| rule.revoked(at)),
            Ends::Client(client, at) => self.clients.update(client.0, |rule| rule.revoked(at)),
            Ends::Session(session, at) => self.sessions.update(session.0, |rule| rule.revoked(at)),
            Ends::Issuer(issuer, at) => self.issuers.update(issuer.0, |rule| rule.revoked(at)),
            // The time of issue does not matter: any non-zero time does.
            Ends::Token(token) => self.tokens.update(token.0, |rule| rule.revoked(Timestamp::from_secs(1))),
        }
    }

    fn forget(&mut self, ends: Ends) {
        match ends {
            Ends::Roles { subject, .. } | Ends::Subject(subject, _) => self.subjects.forget(subject.0),
            Ends::Client(client, _) => self.clients.forget(client.0),
            Ends::Session(session, _) => self.sessions.forget(session.0),
            Ends::Issuer(issuer, _) => self.issuers.forget(issuer.0),
            Ends::Token(token) => self.tokens.forget(token.0),
        }
    }

    /// Whether anything should be folded.
    fn is_due(&self) -> bool {
        let due = |part| {
            self.subjects.is_due(part, SHARE)
                || self.clients.is_due(part, SHARE)
                || self.sessions.is_due(part, SHARE)
                || self.tokens.is_due(part, SHARE)
        };
        (0..PARTS).any(due)
    }
}

/// The snapshot in force, and the locks of its writer.
#[derive(Debug)]
pub struct Revocations {
    current: ArcSwap<Snapshot>,
    /// Held while the snapshot is replaced.
    writer: Mutex<()>,
    /// Held while parts are folded.
    folder: Mutex<()>,
}

impl Revocations {
    /// Creates a snapshot in which nothing is ended. With `not_before`, tokens issued before that second are
    /// rejected.
    #[must_use]
    pub fn new(not_before: Option<Timestamp>) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::new(not_before)),
            writer: Mutex::default(),
            folder: Mutex::default(),
        }
    }

    /// Rejects tokens issued before this second from now on.
    pub fn set_not_before(&self, not_before: Timestamp) {
        let _writer = lock(&self.writer);
        self.replace(|next| next.not_before = Some(not_before));
    }

    /// The snapshot in force. Never waits; judge a request under one snapshot.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The snapshot in force, to be kept for longer.
    #[must_use]
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Applies all of these in one step. Order and repetition make no difference.
    pub fn apply(&self, ends: impl IntoIterator<Item = Ends>) {
        let _writer = lock(&self.writer);
        self.replace(|next| ends.into_iter().for_each(|ends| next.apply(ends)));
    }

    /// For each of these names, replaces everything in force with what remains.
    pub fn restate<R: IntoIterator<Item = Ends>>(&self, named: impl IntoIterator<Item = (Ends, R)>) {
        let _writer = lock(&self.writer);
        self.replace(|next| {
            for (ends, remaining) in named {
                next.forget(ends);
                remaining.into_iter().for_each(|ends| next.apply(ends));
            }
        });
    }

    /// Rejects tokens that are older than what is known of these issuers; replaces all earlier horizons of
    /// issuers.
    pub fn set_horizons(&self, horizons: impl IntoIterator<Item = (IssuerKey, Horizon)>) {
        let _writer = lock(&self.writer);
        let mut all = HashMap::<Key, Vec<Horizon>, AsIs>::default();
        for (issuer, horizon) in horizons {
            all.entry(issuer.0).or_default().push(horizon);
        }
        self.replace(|next| next.horizons = Arc::new(all));
    }

    /// Rejects tokens of all issuers that are older than what is known of these deleted events.
    pub fn set_common_horizons(&self, horizons: impl IntoIterator<Item = Horizon>) {
        let _writer = lock(&self.writer);
        self.replace(|next| next.common_horizons = horizons.into_iter().collect());
    }

    /// Whether so much changed that [`Self::fold`] should be called.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.current.load().is_due()
    }

    /// Folds the recent layers that have grown into the base. Takes a few milliseconds for each of up to 128
    /// parts, while events are published as usual: call it on a thread that may block.
    pub fn fold(&self) {
        self.fold_grown(SHARE);
    }

    /// As [`Self::apply`] and [`Self::fold`], for many at a time while the log is replayed.
    pub fn replay(&self, ends: impl IntoIterator<Item = Ends>) {
        self.apply(ends);
        // Folds only what has doubled, so that each entry is copied a few times and not once per call.
        self.fold_grown(1);
    }

    fn fold_grown(&self, share: usize) {
        let _folder = lock(&self.folder);
        self.fold_parts(|all| &mut all.subjects, share);
        self.fold_parts(|all| &mut all.clients, share);
        self.fold_parts(|all| &mut all.sessions, share);
        self.fold_parts(|all| &mut all.tokens, share);
    }

    fn fold_parts<R: Rule>(&self, table: fn(&mut Snapshot) -> &mut CutoffTable<R>, share: usize) {
        for part in 0..PARTS {
            let mut seen = Snapshot::clone(&self.current.load());
            let seen = table(&mut seen);
            if !seen.is_due(part, share) {
                continue;
            }
            let folded = seen.fold(part);
            let _writer = lock(&self.writer);
            let mut next = Snapshot::clone(&self.current.load());
            table(&mut next).install(folded);
            self.current.store(Arc::new(next));
        }
    }

    fn replace(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.current.load());
        next.generation += 1;
        change(&mut next);
        self.current.store(Arc::new(next));
    }
}

/// A writer that panicked has not stored its snapshot, so the one in force is intact.
fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
