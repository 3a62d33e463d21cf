//! Stored records as values: events, last uses, key sets, usage.

use std::sync::Arc;
use std::time::Duration;

use crate::identity::{ClientKey, IssuerKey, Key, SessionKey, SubjectKey, TokenKey, TokenNames};
use crate::time::{Monotonic, Timestamp};

mod kinds;
mod per_issuer;

pub use kinds::{EventKind, EventSource, SubjectKind};
pub use per_issuer::PerIssuer;

/// The signal that an event came with, as a hash: who sent it, under which id, what it was and when it happened by its
/// sender's clock. Events that no signal brought have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventOrigin(pub(super) Key);

impl EventOrigin {
    /// Of a signal with this sender, id, type and time.
    #[must_use]
    pub fn signal(sender: &str, id: &str, r#type: &str, at: Timestamp) -> Self {
        Self(Key::of_all(&[sender, id, r#type, &at.as_millis().to_string()]))
    }
}

/// Something happened that ends tokens.
///
/// An event is stored once. Of events from the same signal, two are the same when kind and key are; of events without a
/// signal, when kind, key, time and role version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Whose tokens are meant.
    pub issuer: Arc<str>,
    /// The subject, of the kinds that name one; of `session-revoked` when only that subject's tokens are meant.
    pub subject: Option<Box<str>>,
    /// Which claim the subject is compared with.
    pub subject_kind: SubjectKind,
    /// The login session, of `session-revoked`.
    pub session: Option<Box<str>>,
    /// The client, of `client-revoked`.
    pub client: Option<Box<str>>,
    /// The token, of `token-revoked`; absent when it was named by its key.
    pub jti: Option<Box<str>>,
    /// What the event names, as tokens are compared with it.
    pub key: Key,
    /// When it happened.
    pub at: Timestamp,
    /// The version of the roles since then; at most `i64::MAX`, which is what a database can hold.
    pub role_version: Option<u64>,
    /// From then on no token it could touch is alive, by the settings with which it was made and the wall clock of that
    /// moment. What is deleted follows [`StoredEvent::retention`].
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

    /// As [`Self::subject`], of a subject that is named in some way.
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

    /// All tokens of the login session were revoked; with a subject, those of that subject only.
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

    /// This token, which may have no `jti`, was revoked.
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

/// What makes two events the same one.
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
    /// The signal that it came with; then time and version make no difference, because a repetition may be read with
    /// another time.
    pub origin: Option<EventOrigin>,
}

impl Identity {
    /// Of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let Event { kind, key, at, role_version, origin, .. } = *event;
        Self { kind, key, at, role_version, origin }
    }
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the log; never given twice.
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
    /// How long it must be kept, by the settings with which it was made.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.event.expires_at.since(self.received_at)
    }
}

/// Where an event was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the log; that of its first arrival when it is a repetition.
    pub sequence: u64,
    /// Whether it is new.
    pub new: bool,
    /// Whether it arrived before and was undone, and so has no effect.
    pub undone: bool,
    /// When it happened, as it was stored at its first arrival.
    pub at: Timestamp,
}

/// What the deletion of old events left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// How many events were deleted.
    pub deleted: usize,
    /// What the deleted ones named, and the other events of each that still count.
    pub names: Vec<(EventKind, Key, Vec<StoredEvent>)>,
    /// What is known of the deleted events of these issuers.
    pub forgotten: Vec<Forgotten>,
    /// Where to go on; `None` at the end.
    pub next: Option<TrimCursor>,
}

/// How far old events were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimCursor {
    pub(super) expires_at: Timestamp,
    pub(super) sequence: u64,
}

/// What is known of an issuer's deleted events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Its name.
    pub issuer: Arc<str>,
    /// They may have ended tokens that were issued until then, by the monotonic clock; stored as running time,
    pub until: Monotonic,
    /// and are older than this: younger ones they would still be kept for.
    pub retention: Duration,
}

/// For how long events of an issuer are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub issuer: Arc<str>,
    /// How long an event can matter after its arrival.
    pub retention: Duration,
    /// How far `iat` may lie ahead of an event's arrival.
    pub leeway: Duration,
}

/// What is left after undoing an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The event that was undone.
    pub event: StoredEvent,
    /// The other events under the same key that still count.
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
    /// The last, by the wall clock.
    pub last_used_at: Timestamp,
    /// The last, by the monotonic clock; stored as running time.
    pub last_used_monotonic: Monotonic,
    /// `exp`.
    pub expires_at: Timestamp,
    /// Its other names.
    pub names: Option<Arc<TokenNames>>,
}

/// The idle timeout that was in force last for an issuer, so that what was idle by it stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleTerms {
    /// The timeout; `None`: no token went idle.
    pub timeout: Option<Duration>,
    /// What remains of earlier ones.
    pub floor: Option<IdleFloor>,
}

/// The moment since which tokens had to be used to be in use when the idle timeout grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleFloor {
    /// By the monotonic clock; stored as running time.
    pub monotonic: Monotonic,
    /// By the wall clock, which may have been wrong.
    pub wall: Timestamp,
    /// The timeout before. What was used within it is never idle by this floor, whatever the wall clock said then.
    pub timeout: Duration,
}

/// How often a client was answered how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The client.
    pub client: Box<str>,
    /// The route's pattern.
    pub route: Box<str>,
    /// The status of the answers.
    pub status: u16,
    /// How many; when added, how many more.
    pub count: u64,
    /// The last of them.
    pub last_used_at: Timestamp,
}
