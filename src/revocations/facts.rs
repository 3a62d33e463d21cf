//! The facts that a verdict is based on, and the verdict.

use std::sync::Arc;
use std::time::Duration;

use crate::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey, TokenNames};
use crate::time::{Monotonic, Now, Timestamp};

/// What a token must tell to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Its subject's other names, and its login session.
    pub names: Option<Arc<TokenNames>>,
}

impl TokenFacts {
    /// By all names.
    pub(super) fn subjects(&self) -> impl Iterator<Item = SubjectKey> {
        self.subject.into_iter().chain(self.names.iter().flat_map(|names| names.subjects.iter().copied()))
    }
}

/// Why a token is no longer in force. When several are true the first of this list is told.
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
    /// It is older than what the store knows: than the store itself, or than events that were deleted because no token
    /// could live so long by the settings of that time.
    BeforeState,
}

/// What a token is compared with when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedBy {
    /// Tokens issued until then ended, in whole seconds; for [`Ended::BeforeState`], before then.
    pub at: Option<Timestamp>,
    /// Tokens with an older version of their subject's roles ended.
    pub role_version: Option<u64>,
}

/// What is known of deleted events of an issuer: they may have ended tokens issued until then. What younger tokens than
/// `retention` need is not deleted, so it says nothing about those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// They may have ended tokens that were issued until then, by running time: the wall clock may have been wrong when they
    /// came, and is right when a verdict counts,
    pub until: Monotonic,
    /// and are older than this.
    pub retention: Duration,
}

impl Horizon {
    /// Tokens issued until then are reached. Real time goes by at least as fast as running time, so `until` lies at least so
    /// far back on a wall clock that is right.
    pub(super) fn reach(&self, now: Now) -> Timestamp {
        let ran = now.monotonic.since(self.until);
        let ahead = self.until.since(now.monotonic);
        now.wall.minus(ran).plus(ahead).min(now.wall.minus(self.retention))
    }
}
