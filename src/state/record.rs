//! Stored records as values: events, last uses, key sets, usage.

use std::sync::Arc;
use std::time::Duration;

use crate::identity::{ClientKey, IssuerKey, Key, SessionKey, SubjectKey, TokenKey, TokenNames};
use crate::time::{Monotonic, Timestamp};

mod kinds;
mod per_issuer;

pub use kinds::{EventKind, EventSource, SubjectKind};
pub use per_issuer::PerIssuer;

/// The signal that an event came with, as a hash of its sender, its id, its type, and its time by the sender's
/// clock. Events that did not come with a signal have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventOrigin(pub(super) Key);

impl EventOrigin {
    /// The origin for a signal with this sender, id, type and time.
    #[must_use]
    pub fn signal(sender: &str, id: &str, r#type: &str, at: Timestamp) -> Self {
        Self(Key::of_all(&[sender, id, r#type, &at.as_millis().to_string()]))
    }
}

/// Something that ends tokens.
///
/// Each event is stored once. Two events from the same signal are the same if their kind and key are; two
/// events without a signal, if their kind, key, time and role version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The issuer whose tokens are affected.
    pub issuer: Arc<str>,
    /// The subject, for kinds that name one; for `session-revoked`, set if only that subject's tokens are affected.
    pub subject: Option<Box<str>>,
    /// Which claim the subject is compared with.
    pub subject_kind: SubjectKind,
    /// The login session, for `session-revoked`.
    pub session: Option<Box<str>>,
    /// The client, for `client-revoked`.
    pub client: Option<Box<str>>,
    /// The token's id, for `token-revoked`; absent if the token was named by its key.
    pub jti: Option<Box<str>>,
    /// The key that tokens are compared with.
    pub key: Key,
    /// When it happened.
    pub at: Timestamp,
    /// The role version from then on; at most `i64::MAX`, the largest that the database can hold.
    pub role_version: Option<u64>,
    /// From this moment, no token that the event could affect is alive, according to the settings and the wall
    /// clock when it was made. Deletion is based on [`StoredEvent::retention`] instead.
    pub expires_at: Timestamp,
    /// The signal that it came with.
    pub origin: Option<EventOrigin>,
}

impl Event {
    fn new(kind: EventKind, issuer: &Arc<str>, key: Key, at: Timestamp, expires_at: Timestamp) -> Self {
        let issuer = Arc::clone(issuer);
        Self {
            kind,
            issuer,
            subject: None,
            subject_kind: SubjectKind::Subject,
            session: None,
            client: None,
            jti: None,
            key,
            at,
            role_version: None,
            expires_at,
            origin: None,
        }
    }

    /// The subject's roles changed, or all its tokens were revoked.
    #[must_use]
    pub fn subject(
        kind: EventKind,
        issuer: &Arc<str>,
        subject: &str,
        at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self::named(kind, issuer, (SubjectKind::Subject, subject), at, expires_at)
    }

    /// Like [`Self::subject`], for a subject that another claim names.
    #[must_use]
    pub fn named(
        kind: EventKind,
        issuer: &Arc<str>,
        (subject_kind, subject): (SubjectKind, &str),
        at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        let key = subject_kind.key(issuer, subject).0;
        Self { subject: Some(subject.into()), subject_kind, ..Self::new(kind, issuer, key, at, expires_at) }
    }

    /// All tokens of the login session were revoked; with a subject, only that subject's.
    #[must_use]
    pub fn session(
        issuer: &Arc<str>,
        session: &str,
        only: Option<(SubjectKind, &str)>,
        at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        let key = match only {
            Some((kind, subject)) => SessionKey::of(issuer, session, kind.key(issuer, subject)),
            None => SessionKey::new(issuer, session),
        };
        Self {
            subject: only.map(|(_, subject)| subject.into()),
            subject_kind: only.map(|(kind, _)| kind).unwrap_or_default(),
            session: Some(session.into()),
            ..Self::new(EventKind::SessionRevoked, issuer, key.0, at, expires_at)
        }
    }

    /// The token with this `jti` was revoked.
    #[must_use]
    pub fn token(issuer: &Arc<str>, jti: &str, at: Timestamp, expires_at: Timestamp) -> Self {
        let key = TokenKey::new(issuer, jti);
        Self { jti: Some(jti.into()), ..Self::token_key(issuer, key, at, expires_at) }
    }

    /// The token with this key, which may have no `jti`, was revoked.
    #[must_use]
    pub fn token_key(issuer: &Arc<str>, token: TokenKey, at: Timestamp, expires_at: Timestamp) -> Self {
        Self::new(EventKind::TokenRevoked, issuer, token.0, at, expires_at)
    }

    /// All tokens of the client were revoked.
    #[must_use]
    pub fn client(issuer: &Arc<str>, client: &str, at: Timestamp, expires_at: Timestamp) -> Self {
        let key = ClientKey::new(issuer, client).0;
        Self {
            client: Some(client.into()),
            ..Self::new(EventKind::ClientRevoked, issuer, key, at, expires_at)
        }
    }

    /// All tokens of the issuer were revoked.
    #[must_use]
    pub fn issuer(issuer: &Arc<str>, at: Timestamp, expires_at: Timestamp) -> Self {
        Self::new(EventKind::IssuerRevoked, issuer, IssuerKey::new(issuer).0, at, expires_at)
    }

    /// The event that undoes this one.
    pub(crate) fn undoing(&self, at: Timestamp) -> Self {
        Self { kind: EventKind::Undone, at, role_version: None, origin: None, ..self.clone() }
    }
}

/// The fields that make two events the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What happened.
    pub kind: EventKind,
    /// What the event names.
    pub key: Key,
    /// When it happened.
    pub at: Timestamp,
    /// The version of the roles.
    pub role_version: Option<u64>,
    /// The signal that it came with. If there is one, time and version are not compared, because a repeated
    /// delivery may be read with a different time.
    pub origin: Option<EventOrigin>,
}

impl Identity {
    /// The identity of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let Event { kind, key, at, role_version, origin, .. } = *event;
        Self { kind, key, at, role_version, origin }
    }
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the log; never reused.
    pub sequence: u64,
    /// What happened.
    pub event: Event,
    /// The event that this one undoes.
    pub undoes: Option<u64>,
    /// Where it came from.
    pub source: EventSource,
    /// When it arrived, by the wall clock.
    pub received_at: Timestamp,
    /// Whether it was undone.
    pub undone: bool,
}

impl StoredEvent {
    /// How long it must be kept, according to the settings when it was made.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.event.expires_at.since(self.received_at)
    }
}

/// Where an event was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the log; for a repeated event, the place of the first one.
    pub sequence: u64,
    /// Whether it is new.
    pub new: bool,
    /// Whether it arrived before and was undone, so it has no effect.
    pub undone: bool,
    /// When it happened, as stored when it first arrived.
    pub at: Timestamp,
}

/// The result of deleting old events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// How many events were deleted.
    pub deleted: usize,
    /// What the deleted events named, each with the remaining events that are still in effect.
    pub names: Vec<(EventKind, Key, Vec<StoredEvent>)>,
    /// What is remembered of deleted events, for all issuers.
    pub forgotten: Vec<Forgotten>,
    /// Where to continue; `None` at the end.
    pub next: Option<TrimCursor>,
}

/// A position in the scan for old events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimCursor {
    pub(super) expires_at: Timestamp,
    pub(super) sequence: u64,
}

/// What is remembered of an issuer's deleted events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Its name.
    pub issuer: Arc<str>,
    /// They may have ended tokens that were issued until this moment on the monotonic clock (stored as running time)
    pub until: Monotonic,
    /// and that are older than this; events that affect younger tokens would still be kept.
    pub retention: Duration,
}

/// How long events of an issuer are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub issuer: Arc<str>,
    /// How long an event can have an effect after it arrived.
    pub retention: Duration,
    /// How far `iat` may lie after the arrival of an event.
    pub leeway: Duration,
}

/// The result of undoing an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The event that was undone.
    pub event: StoredEvent,
    /// The other events with the same key that are still in effect.
    pub remaining: Vec<StoredEvent>,
}

/// A token in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// The token.
    pub token: TokenKey,
    /// Its issuer.
    pub issuer: Arc<str>,
    /// Its subject.
    pub subject: Option<SubjectKey>,
    /// Its client.
    pub client: Option<Arc<str>>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// The first request forwarded with it.
    pub first_used_at: Timestamp,
    /// The last request, by the wall clock.
    pub last_used_at: Timestamp,
    /// The last request, by the monotonic clock; stored as running time.
    pub last_used_monotonic: Monotonic,
    /// `exp`.
    pub expires_at: Timestamp,
    /// The other claims that may name it.
    pub names: Option<Arc<TokenNames>>,
}

/// The idle timeout that was last in force for an issuer; kept so that tokens that were idle under it stay idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleTerms {
    /// The timeout; `None` if tokens did not go idle.
    pub timeout: Option<Duration>,
    /// The floor that earlier timeouts left.
    pub floor: Option<IdleFloor>,
}

/// When an idle timeout grew, the moment since which a token had to be used not to be idle already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleFloor {
    /// On the monotonic clock; stored as running time.
    pub monotonic: Monotonic,
    /// On the wall clock, which may have been wrong.
    pub wall: Timestamp,
    /// The timeout before the change. A token that was used within it is not idle by this floor, whatever
    /// the wall clock said then.
    pub timeout: Duration,
}

/// How many responses of one kind a client received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The client.
    pub client: Box<str>,
    /// The route's pattern.
    pub route: Box<str>,
    /// The status of the responses.
    pub status: u16,
    /// The count; when adding, the increment.
    pub count: u64,
    /// When the last of them was sent.
    pub last_used_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_undoes_an_event_names_it_and_says_nothing_else_of_it() {
        let (at, end) = (Timestamp::from_secs(100), Timestamp::from_secs(900));
        let event = Event::subject(EventKind::RoleChanged, &"https://a/".into(), "ada", at, end);
        let event =
            Event { role_version: Some(7), origin: Some(EventOrigin::signal("idp", "s1", "t", at)), ..event };
        let undoing = event.undoing(Timestamp::from_secs(200));
        let expected = Event {
            kind: EventKind::Undone,
            at: Timestamp::from_secs(200),
            role_version: None,
            origin: None,
            ..event
        };
        assert_eq!(undoing, expected);
    }
}
