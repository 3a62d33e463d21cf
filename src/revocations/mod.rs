//! Which tokens were ended before their time: cut-offs by subject, client and issuer, and revoked tokens.
//!
//! Pure rules behind a snapshot that readers load without waiting; one writer at a time. Knows neither where events
//! come from nor where they are kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey};
use crate::time::Timestamp;

mod base;
mod recent;
pub mod rules;
mod table;

use recent::PARTS;
pub use rules::{Cutoff, Ends};
use rules::{KeyRule, Rule, SubjectRule};
use table::{SHARE, Table};

/// What a token must tell to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenFacts {
    /// The token itself.
    pub token: TokenKey,
    /// Its issuer.
    pub issuer: IssuerKey,
    /// Its subject.
    pub subject: Option<SubjectKey>,
    /// Its client.
    pub client: Option<ClientKey>,
    /// `iat`; a fraction of a second does not count.
    pub issued_at: Timestamp,
    /// The version of its subject's roles.
    pub role_version: Option<u64>,
}

/// Why a token is not in force any more. When several are true the first of this list is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// The token was revoked.
    Token,
    /// Its subject's tokens were revoked.
    Subject,
    /// Its client's tokens were revoked.
    Client,
    /// Its issuer's tokens were revoked.
    Issuer,
    /// Its subject's roles changed.
    Roles,
    /// It is older than the store, which knows nothing of what was revoked before.
    BeforeState,
}

/// What a token is compared with when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grounds {
    /// Tokens issued until then ended, in whole seconds; for [`Ended::BeforeState`], before then.
    pub at: Option<Timestamp>,
    /// Tokens with an older version of their subject's roles ended.
    pub role_version: Option<u64>,
}

/// How many entries a snapshot holds, by what they name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Subjects.
    pub subjects: usize,
    /// Clients.
    pub clients: usize,
    /// Tokens.
    pub tokens: usize,
    /// Issuers.
    pub issuers: usize,
}

/// Everything that was ended, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    generation: u64,
    not_before: Option<Timestamp>,
    subjects: Table<SubjectRule>,
    clients: Table<KeyRule>,
    issuers: Table<KeyRule>,
    tokens: Table<KeyRule>,
}

impl Snapshot {
    fn new(not_before: Option<Timestamp>) -> Self {
        Self {
            generation: 0,
            not_before,
            subjects: Table::new(),
            clients: Table::new(),
            issuers: Table::new(),
            tokens: Table::new(),
        }
    }

    /// Counts changes that could end a token: while it stands still, a token in force stays so.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many entries there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            subjects: self.subjects.len(),
            clients: self.clients.len(),
            tokens: self.tokens.len(),
            issuers: self.issuers.len(),
        }
    }

    /// Whether a token was ended, and by what.
    #[must_use]
    pub fn judge(&self, facts: &TokenFacts) -> Option<Ended> {
        let issued_at = facts.issued_at;
        let subject = facts.subject.and_then(|subject| self.subjects.get(subject.0));
        if self.tokens.get(facts.token.0).is_some() {
            return Some(Ended::Token);
        }
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
        if subject.is_some_and(|rule| rule.outdates(issued_at, facts.role_version)) {
            return Some(Ended::Roles);
        }
        // The second in which the store was created is the first that it knows all about.
        let older = self.not_before.is_some_and(|created| issued_at.as_secs() < created.as_secs());
        older.then_some(Ended::BeforeState)
    }

    /// What the verdict on an ended token rests on.
    #[must_use]
    pub fn grounds(&self, facts: &TokenFacts, ended: Ended) -> Grounds {
        let subject = facts.subject.and_then(|subject| self.subjects.get(subject.0));
        let client = facts.client.and_then(|client| self.clients.get(client.0));
        let at = match ended {
            Ended::Token => None,
            Ended::Subject => subject.map(|rule| rule.revoked_at()),
            Ended::Client => client.map(|rule| rule.revoked_at()),
            Ended::Issuer => self.issuers.get(facts.issuer.0).map(|rule| rule.revoked_at()),
            Ended::Roles => subject.map(|rule| rule.changed_at(facts.role_version)),
            Ended::BeforeState => self.not_before,
        };
        let role_version = subject.map(|rule| rule.role_version()).filter(|version| *version > 0);
        Grounds { at, role_version: role_version.filter(|_| ended == Ended::Roles) }
    }

    fn apply(&mut self, cutoff: Cutoff) {
        let until = cutoff.expires_at;
        match cutoff.ends {
            Ends::Roles { subject, at, version } => {
                self.subjects.update(subject.0, |rule| rule.roles_changed(at, version, until));
            }
            Ends::Subject(subject, at) => self.subjects.update(subject.0, |rule| rule.revoked(at, until)),
            Ends::Client(client, at) => self.clients.update(client.0, |rule| rule.revoked(at, until)),
            Ends::Issuer(issuer, at) => self.issuers.update(issuer.0, |rule| rule.revoked(at, until)),
            Ends::Token(token) => self.tokens.update(token.0, |rule| rule.revoked(Timestamp::EPOCH, until)),
        }
    }

    fn forget(&mut self, ends: Ends) {
        match ends {
            Ends::Roles { subject, .. } | Ends::Subject(subject, _) => self.subjects.forget(subject.0),
            Ends::Client(client, _) => self.clients.forget(client.0),
            Ends::Issuer(issuer, _) => self.issuers.forget(issuer.0),
            Ends::Token(token) => self.tokens.forget(token.0),
        }
    }

    /// Whether anything waits to be folded.
    fn is_due(&self) -> bool {
        let due = |part| {
            self.subjects.is_due(part, SHARE)
                || self.clients.is_due(part, SHARE)
                || self.tokens.is_due(part, SHARE)
        };
        (0..PARTS).any(due)
    }
}

/// The snapshot in force, and the one hand that replaces it.
#[derive(Debug)]
pub struct Revocations {
    current: ArcSwap<Snapshot>,
    /// Held by whoever replaces the snapshot.
    writer: Mutex<()>,
    /// Held by whoever folds.
    folder: Mutex<()>,
}

impl Revocations {
    /// Nothing ended; with `not_before`, tokens issued before the second it lies in are refused.
    #[must_use]
    pub fn new(not_before: Option<Timestamp>) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::new(not_before)),
            writer: Mutex::default(),
            folder: Mutex::default(),
        }
    }

    /// From now on tokens issued before the second that this lies in are refused.
    pub fn set_not_before(&self, not_before: Timestamp) {
        let _writer = lock(&self.writer);
        self.replace(|next| next.not_before = Some(not_before));
    }

    /// The snapshot in force. Never waits; judge a request under one.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Puts all of these in force, in one step. Order and repetition make no difference.
    pub fn apply(&self, cutoffs: impl IntoIterator<Item = Cutoff>) {
        let _writer = lock(&self.writer);
        self.replace(|next| cutoffs.into_iter().for_each(|cutoff| next.apply(cutoff)));
    }

    /// Takes back everything that was in force for what `ends` names, and puts `remaining` in its place.
    pub fn restate(&self, ends: Ends, remaining: impl IntoIterator<Item = Cutoff>) {
        let _writer = lock(&self.writer);
        self.replace(|next| {
            next.forget(ends);
            remaining.into_iter().for_each(|cutoff| next.apply(cutoff));
        });
    }

    /// Whether so much changed that [`Self::fold`] should be called.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.current.load().is_due()
    }

    /// Folds what changed into the base, where that has become much. Takes a few milliseconds for each of up to 128
    /// parts, in which events are published as ever: call it on a thread that may wait.
    pub fn fold(&self, now: Timestamp) {
        self.fold_grown(SHARE, now);
    }

    /// As [`Self::apply`] and [`Self::fold`], for many at a time while the log is replayed.
    pub fn replay(&self, cutoffs: impl IntoIterator<Item = Cutoff>, now: Timestamp) {
        self.apply(cutoffs);
        // Only what has doubled, so that each entry is copied a few times and not once for each call.
        self.fold_grown(1, now);
    }

    fn fold_grown(&self, share: usize, now: Timestamp) {
        let _folder = lock(&self.folder);
        self.fold_parts(|all| &mut all.subjects, |table, part| table.is_due(part, share), now);
        self.fold_parts(|all| &mut all.clients, |table, part| table.is_due(part, share), now);
        self.fold_parts(|all| &mut all.tokens, |table, part| table.is_due(part, share), now);
    }

    /// Drops what can touch no living token any more. As [`Self::fold`], but looks at everything: call it now and then.
    pub fn sweep(&self, now: Timestamp) {
        let _folder = lock(&self.folder);
        let second = rules::second(now);
        self.fold_parts(|all| &mut all.subjects, |table, part| table.is_stale(part, second), now);
        self.fold_parts(|all| &mut all.clients, |table, part| table.is_stale(part, second), now);
        self.fold_parts(|all| &mut all.tokens, |table, part| table.is_stale(part, second), now);
        self.fold_parts(|all| &mut all.issuers, |table, part| table.is_stale(part, second), now);
    }

    fn fold_parts<R: Rule>(
        &self,
        table: fn(&mut Snapshot) -> &mut Table<R>,
        chosen: impl Fn(&Table<R>, usize) -> bool,
        now: Timestamp,
    ) {
        for part in 0..PARTS {
            let mut seen = Snapshot::clone(&self.current.load());
            let seen = table(&mut seen);
            if !chosen(seen, part) {
                continue;
            }
            let folded = seen.fold(part, rules::second(now));
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

/// A writer that panicked has not stored its snapshot: the one in force is whole.
fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Timestamp = Timestamp::from_secs(4_000_000_000);

    fn facts(issuer: &str, issued_at: i64) -> TokenFacts {
        TokenFacts {
            token: TokenKey::new(issuer, "jti"),
            issuer: IssuerKey::new(issuer),
            subject: Some(SubjectKey::new(issuer, "alice")),
            client: Some(ClientKey::new(issuer, "app")),
            issued_at: Timestamp::from_secs(issued_at),
            role_version: None,
        }
    }

    fn all(issuer: &str, at: i64) -> Vec<Ends> {
        let at = Timestamp::from_secs(at);
        let subject = SubjectKey::new(issuer, "alice");
        vec![
            Ends::Token(TokenKey::new(issuer, "jti")),
            Ends::Subject(subject, at),
            Ends::Client(ClientKey::new(issuer, "app"), at),
            Ends::Issuer(IssuerKey::new(issuer), at),
            Ends::Roles { subject, at, version: None },
        ]
    }

    #[test]
    fn the_first_reason_of_the_list_is_told() {
        let reasons =
            [Ended::Token, Ended::Subject, Ended::Client, Ended::Issuer, Ended::Roles, Ended::BeforeState];
        for (first, reason) in reasons.into_iter().enumerate() {
            let revocations = Revocations::new(Some(Timestamp::from_millis(100_999)));
            let ends = all("https://a/", 100);
            revocations.apply(ends.into_iter().skip(first).map(|ends| Cutoff { ends, expires_at: LONG }));
            assert_eq!(revocations.load().judge(&facts("https://a/", 99)), Some(reason));
            assert_eq!(revocations.load().judge(&facts("https://b/", 100)), None, "another issuer's token");
        }
    }

    #[test]
    fn the_second_of_the_stores_creation_is_still_accepted() {
        let revocations = Revocations::new(Some(Timestamp::from_millis(100_999)));
        assert_eq!(revocations.load().judge(&facts("https://a/", 100)), None);
        assert_eq!(revocations.load().judge(&facts("https://a/", 99)), Some(Ended::BeforeState));
    }

    #[test]
    fn restating_takes_back_one_event_and_leaves_the_others() {
        for (index, ends) in all("https://a/", 100).into_iter().enumerate() {
            let revocations = Revocations::new(None);
            let cutoff = Cutoff { ends, expires_at: LONG };
            revocations.apply([cutoff]);
            let before = revocations.load().generation();
            assert!(revocations.load().judge(&facts("https://a/", 100)).is_some(), "{index}");
            revocations.restate(ends, []);
            assert_eq!(revocations.load().judge(&facts("https://a/", 100)), None, "{index}");
            assert_eq!(revocations.load().counts(), Counts::default());
            revocations.restate(ends, [cutoff]);
            assert!(revocations.load().judge(&facts("https://a/", 100)).is_some(), "{index}");
            assert!(revocations.load().generation() > before);
        }
    }

    #[test]
    fn a_sweep_drops_what_can_touch_no_living_token() {
        let revocations = Revocations::new(None);
        let until = Timestamp::from_secs(200);
        for i in 0..1_000 {
            let ends =
                Ends::Subject(SubjectKey::new("https://a/", &i.to_string()), Timestamp::from_secs(100));
            let expires_at = if i % 2 == 0 { until } else { LONG };
            revocations.apply([Cutoff { ends, expires_at }]);
        }
        revocations.sweep(until);
        assert_eq!(revocations.load().counts().subjects, 1_000, "the last second is kept");
        revocations.sweep(until.plus(std::time::Duration::from_secs(1)));
        assert_eq!(revocations.load().counts().subjects, 500);
    }

    #[test]
    fn a_held_snapshot_stays_as_it_was() {
        let revocations = Revocations::new(None);
        let held = revocations.load();
        let ends = Ends::Issuer(IssuerKey::new("https://a/"), Timestamp::from_secs(100));
        revocations.apply([Cutoff { ends, expires_at: LONG }]);
        assert_eq!(held.judge(&facts("https://a/", 100)), None);
        assert_eq!(revocations.load().judge(&facts("https://a/", 100)), Some(Ended::Issuer));
    }
}
