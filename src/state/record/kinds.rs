//! The closed sets that describe an event, each with its word for users and its number in the store.

use crate::identity::SubjectKey;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The subject's roles changed.
    RoleChanged,
    /// Revokes the subject's tokens issued until then.
    SubjectRevoked,
    /// Revokes one token.
    TokenRevoked,
    /// Revokes the client's tokens issued until then.
    ClientRevoked,
    /// Revokes the issuer's tokens issued until then.
    IssuerRevoked,
    /// An earlier event was undone.
    Undone,
    /// Revokes the tokens of a login session issued until then.
    SessionRevoked,
}

/// Each kind, the word users see, and the number in the store.
const KINDS: [(EventKind, &str, i64); 7] = [
    (EventKind::RoleChanged, "role-changed", 0),
    (EventKind::SubjectRevoked, "subject-revoked", 1),
    (EventKind::TokenRevoked, "token-revoked", 2),
    (EventKind::ClientRevoked, "client-revoked", 3),
    (EventKind::IssuerRevoked, "issuer-revoked", 4),
    (EventKind::Undone, "revocation-undone", 5),
    (EventKind::SessionRevoked, "session-revoked", 6),
];

/// The claim of a token that the subject of an event is compared with (`[issuers.claims]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SubjectKind {
    /// The subject claim.
    #[default]
    Subject,
    /// The e-mail address.
    Email,
    /// Any of the aliases.
    Alias,
}

/// Each kind, the word users see, and the number in the store.
const SUBJECT_KINDS: [(SubjectKind, &str, i64); 3] = [
    (SubjectKind::Subject, "subject", 0),
    (SubjectKind::Email, "email", 1),
    (SubjectKind::Alias, "alias", 2),
];

impl SubjectKind {
    /// The word users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        SUBJECT_KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, word, _)| word)
    }

    /// The kind with this word, if any.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        SUBJECT_KINDS.iter().find(|(_, known, _)| *known == word).map(|(kind, ..)| *kind)
    }

    /// The key of a subject that this claim names.
    #[must_use]
    pub fn key(self, issuer: &str, name: &str) -> SubjectKey {
        match self {
            Self::Subject => SubjectKey::new(issuer, name),
            Self::Email => SubjectKey::email(issuer, name),
            Self::Alias => SubjectKey::alias(issuer, name),
        }
    }

    pub(in crate::state) fn code(self) -> i64 {
        SUBJECT_KINDS.iter().find(|(kind, ..)| *kind == self).map_or(0, |(.., code)| *code)
    }

    pub(in crate::state) fn from_code(code: i64) -> Option<Self> {
        SUBJECT_KINDS.iter().find(|(.., known)| *known == code).map(|(kind, ..)| *kind)
    }
}

/// Where an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventSource {
    /// The admin API.
    Admin,
    /// A Shared Signals transmitter.
    Ssf,
    /// The embedded authority.
    Authority,
    /// Another replica.
    Replica,
    /// An OpenID provider's back-channel logout.
    Logout,
    /// A provider's Global Token Revocation.
    GlobalRevocation,
    /// A SCIM client.
    Scim,
}

const SOURCES: [(EventSource, &str, i64); 7] = [
    (EventSource::Admin, "admin", 0),
    (EventSource::Ssf, "ssf", 1),
    (EventSource::Authority, "authority", 2),
    (EventSource::Replica, "replica", 3),
    (EventSource::Logout, "logout", 4),
    (EventSource::GlobalRevocation, "gtr", 5),
    (EventSource::Scim, "scim", 6),
];

impl EventKind {
    /// The word users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, word, _)| word)
    }

    /// The kind with this word, if any.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        KINDS.iter().find(|(_, known, _)| *known == word).map(|(kind, ..)| *kind)
    }

    pub(in crate::state) fn code(self) -> i64 {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or(-1, |(.., code)| *code)
    }

    pub(in crate::state) fn from_code(code: i64) -> Option<Self> {
        KINDS.iter().find(|(.., known)| *known == code).map(|(kind, ..)| *kind)
    }

    /// Whether the keys of both kinds identify the same sort of thing.
    #[must_use]
    pub fn shares_keys_with(self, other: Self) -> bool {
        let subject = |kind| matches!(kind, Self::RoleChanged | Self::SubjectRevoked);
        self == other || (subject(self) && subject(other))
    }
}

impl EventSource {
    /// The word users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        SOURCES.iter().find(|(source, ..)| *source == self).map_or("", |(_, word, _)| word)
    }

    pub(in crate::state) fn code(self) -> i64 {
        SOURCES.iter().find(|(source, ..)| *source == self).map_or(-1, |(.., code)| *code)
    }

    pub(in crate::state) fn from_code(code: i64) -> Option<Self> {
        SOURCES.iter().find(|(.., known)| *known == code).map(|(source, ..)| *source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_codes_lead_back() {
        for (kind, word, code) in KINDS {
            assert_eq!((kind.as_str(), kind.code()), (word, code));
            assert_eq!(EventKind::from_word(word), Some(kind));
            assert_eq!(EventKind::from_code(code), Some(kind));
        }
        for (source, word, code) in SOURCES {
            assert_eq!((source.as_str(), source.code()), (word, code));
            assert_eq!(EventSource::from_code(code), Some(source));
        }
        for (kind, word, code) in SUBJECT_KINDS {
            assert_eq!((kind.as_str(), kind.code()), (word, code));
            assert_eq!(SubjectKind::from_word(word), Some(kind));
            assert_eq!(SubjectKind::from_code(code), Some(kind));
        }
    }
}
