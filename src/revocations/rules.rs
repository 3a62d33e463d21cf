//! What an event ends, and the combined rule of all events of one subject, client, issuer or token.
//!
//! Times are whole seconds: `iat` counts seconds, so `iat ≤ t` is the same question as `iat ≤ ⌊t⌋`. A cut-off of zero
//! means none, because no token from 1970 is alive.

use crate::identity::{ClientKey, IssuerKey, SessionKey, SubjectKey, TokenKey};
use crate::time::Timestamp;

/// What one event ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Tokens of the subject with older roles.
    Roles {
        /// The subject.
        subject: SubjectKey,
        /// When they changed.
        at: Timestamp,
        /// The new version, if the issuer numbers them.
        version: Option<u64>,
    },
    /// Tokens of the subject issued until then.
    Subject(SubjectKey, Timestamp),
    /// Tokens of the client issued until then.
    Client(ClientKey, Timestamp),
    /// Tokens of the login session issued until then.
    Session(SessionKey, Timestamp),
    /// Tokens of the issuer issued until then.
    Issuer(IssuerKey, Timestamp),
    /// One token.
    Token(TokenKey),
}

/// A rule that a table keeps under a key. The default rule is empty.
pub trait Rule: Copy + Default {
    /// Whether the rule has no effect.
    fn is_empty(&self) -> bool;
}

/// The combined rule of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubjectRule {
    /// The highest version of its roles.
    role_version: u64,
    /// The latest change of roles that carried no version.
    unversioned: u32,
    /// The latest change of roles of either kind.
    changed: u32,
    /// The latest revocation.
    revoked: u32,
}

/// The combined rule of one client, login session or issuer, or the revocation of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyRule {
    revoked: u32,
}

impl Rule for SubjectRule {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Rule for KeyRule {
    fn is_empty(&self) -> bool {
        self.revoked == 0
    }
}

impl SubjectRule {
    /// Adds a change of roles.
    #[must_use]
    pub fn roles_changed(mut self, at: Timestamp, version: Option<u64>) -> Self {
        let at = second(at);
        match version {
            Some(version) => self.role_version = self.role_version.max(version),
            None => self.unversioned = self.unversioned.max(at),
        }
        self.changed = self.changed.max(at);
        self
    }

    /// Adds a revocation.
    #[must_use]
    pub fn revoked(mut self, at: Timestamp) -> Self {
        self.revoked = self.revoked.max(second(at));
        self
    }

    /// Combines both rules.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            role_version: self.role_version.max(other.role_version),
            unversioned: self.unversioned.max(other.unversioned),
            changed: self.changed.max(other.changed),
            revoked: self.revoked.max(other.revoked),
        }
    }

    /// The highest version of its roles; 0 if none is known.
    #[must_use]
    pub fn role_version(&self) -> u64 {
        self.role_version
    }

    /// The latest revocation.
    #[must_use]
    pub fn revoked_at(&self) -> Timestamp {
        Timestamp::from_secs(self.revoked.into())
    }

    /// The time of the change of roles that applies to a token with this version.
    #[must_use]
    pub fn changed_at(&self, version: Option<u64>) -> Timestamp {
        Timestamp::from_secs(if version.is_some() { self.unversioned } else { self.changed }.into())
    }

    /// Whether a token issued then was revoked with its subject.
    #[must_use]
    pub fn revokes(&self, issued_at: Timestamp) -> bool {
        reaches(self.revoked, issued_at)
    }

    /// Whether the roles of a token issued then have changed since. Versions decide where both sides have
    /// one; for a change or a token without a version, time decides.
    #[must_use]
    pub fn outdates(&self, issued_at: Timestamp, version: Option<u64>) -> bool {
        match version {
            Some(version) => version < self.role_version || reaches(self.unversioned, issued_at),
            None => reaches(self.changed, issued_at),
        }
    }
}

impl KeyRule {
    /// Combines both rules.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { revoked: self.revoked.max(other.revoked) }
    }

    /// Adds a revocation.
    #[must_use]
    pub fn revoked(self, at: Timestamp) -> Self {
        Self { revoked: self.revoked.max(second(at)) }
    }

    /// The latest revocation.
    #[must_use]
    pub fn revoked_at(&self) -> Timestamp {
        Timestamp::from_secs(self.revoked.into())
    }

    /// Whether a token issued then was revoked.
    #[must_use]
    pub fn revokes(&self, issued_at: Timestamp) -> bool {
        reaches(self.revoked, issued_at)
    }
}

/// Whether a cut-off applies to a token issued at `issued_at`.
fn reaches(cutoff: u32, issued_at: Timestamp) -> bool {
    cutoff != 0 && issued_at.as_secs() <= i64::from(cutoff)
}

/// The second that contains an instant, clamped to 1970–2106.
fn second(at: Timestamp) -> u32 {
    u32::try_from(at.as_secs().max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn two_rules_of_a_key_say_the_later_revocation() {
        let of = |millis| KeyRule::default().revoked(ms(millis));
        for (one, other) in [(of(1_000), of(2_000)), (of(2_000), of(1_000)), (KeyRule::default(), of(2_000))]
        {
            assert_eq!(one.and(other), of(2_000));
        }
    }

    #[test]
    fn a_token_issued_within_the_second_of_the_event_is_refused() {
        for (event, issued_at, ended) in [
            (1_000_700, 1_000_000, true),
            (1_000_700, 1_001_000, false),
            (1_000_000, 1_000_000, true),
            (1_000_000, 1_000_999, true),
            (1_000_999, 1_001_000, false),
            (1_000_000, 999_999, true),
        ] {
            let subject = SubjectRule::default().revoked(ms(event));
            let client = KeyRule::default().revoked(ms(event));
            let roles = SubjectRule::default().roles_changed(ms(event), None);
            assert_eq!(subject.revokes(ms(issued_at)), ended, "subject: {event}, {issued_at}");
            assert_eq!(client.revokes(ms(issued_at)), ended, "client: {event}, {issued_at}");
            assert_eq!(roles.outdates(ms(issued_at), None), ended, "roles: {event}, {issued_at}");
        }
    }

    #[test]
    fn versions_decide_where_both_sides_have_one() {
        let versioned = SubjectRule::default().roles_changed(ms(100_000), Some(5));
        let mixed = versioned.roles_changed(ms(50_000), None);
        for (rule, issued_at, version, outdated) in [
            (versioned, 90_000, Some(4), true),
            (versioned, 900_000, Some(4), true),
            (versioned, 90_000, Some(5), false),
            (versioned, 90_000, Some(6), false),
            (versioned, 100_000, None, true),
            (versioned, 101_000, None, false),
            (mixed, 50_000, Some(5), true),
            (mixed, 51_000, Some(5), false),
            (mixed, 100_000, None, true),
            (mixed, 101_000, None, false),
            (SubjectRule::default(), 0, None, false),
            (SubjectRule::default(), 0, Some(0), false),
        ] {
            assert_eq!(rule.outdates(ms(issued_at), version), outdated, "{rule:?} {issued_at} {version:?}");
        }
    }

    #[test]
    fn order_and_repetition_change_nothing() {
        let events = [(7, Some(3)), (9, None), (5, Some(8)), (9, None), (2, None), (7, Some(3))];
        let fold = |order: &mut dyn Iterator<Item = &(i64, Option<u64>)>| {
            order.fold(SubjectRule::default(), |rule, (at, version)| {
                rule.roles_changed(ms(at * 1000), *version)
            })
        };
        assert_eq!(fold(&mut events.iter()), fold(&mut events.iter().rev()));
        assert_eq!(fold(&mut events.iter()), fold(&mut events[..3].iter()));
    }
}
