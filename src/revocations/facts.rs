//! The facts that a verdict is based on, and the verdict.

use std::sync::Arc;
use std::time::Duration;

use crate::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey, TokenNames};
use crate::time::{Monotonic, Now, Timestamp};

/// The facts of a token that a verdict needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// The token's key.
    pub token: TokenKey,
    /// Its issuer.
    pub issuer: IssuerKey,
    /// Its subject.
    pub subject: Option<SubjectKey>,
    /// Its client.
    pub client: Option<ClientKey>,
    /// `iat`, in whole seconds.
    pub issued_at: Timestamp,
    /// The version of its subject's roles.
    pub role_version: Option<u64>,
    /// Other names of its subject, and its login session.
    pub names: Option<Arc<TokenNames>>,
}

impl TokenFacts {
    /// All names of the subject.
    pub(super) fn subjects(&self) -> impl Iterator<Item = SubjectKey> {
        self.subject.into_iter().chain(self.names.iter().flat_map(|names| names.subjects.iter().copied()))
    }
}

/// Why a token is no longer in force. If several reasons apply, the first in this list is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// The token was revoked.
    Token,
    /// The tokens of its login session were revoked.
    Session,
    /// Its subject's tokens were revoked.
    Subject,
    /// Its client's tokens were revoked.
    Client,
    /// Its issuer's tokens were revoked.
    Issuer,
    /// Its subject's roles changed.
    Roles,
    /// It is older than what the store covers: older than the store itself, or than events that were deleted
    /// because, by the settings at that time, no token could live that long.
    BeforeState,
}

/// The values that an ended token is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedBy {
    /// Tokens issued at or before this time ended, in whole seconds; for [`Ended::BeforeState`], before it.
    pub at: Option<Timestamp>,
    /// Tokens with an older version of their subject's roles ended.
    pub role_version: Option<u64>,
}

/// What is known of an issuer's deleted events: they may have ended tokens issued until then. Events that
/// tokens younger than `retention` need are never deleted, so a horizon does not affect those tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The events may have ended tokens issued until then. Measured by running time, because the wall clock
    /// may have been wrong when the events came, and is right when a verdict counts.
    pub until: Monotonic,
    /// Only tokens older than this are affected.
    pub retention: Duration,
}

impl Horizon {
    /// Tokens issued until this time are affected. Real time passes at least as fast as running time, so on a
    /// correct wall clock `until` lies at least this far back.
    pub(super) fn reach(&self, now: Now) -> Timestamp {
        let ran = now.monotonic.since(self.until);
        let ahead = self.until.since(now.monotonic);
        now.wall.minus(ran).plus(ahead).min(now.wall.minus(self.retention))
    }
}
