//! A token whose signature and claims have been verified: parsed once, checked on every request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use http::{HeaderName, HeaderValue};

use super::conditions::table::ConditionSet;
use super::decide::{Ask, Asked, NoPermit, Pass};
use super::denial::Reason;
use super::identity::IdentityHeaders;
use super::standing::{Known, TokenStanding};
use crate::revocations::{Ended, Revocations, Snapshot, TokenFacts};
use crate::sessions::{Idle, Idleness, Introduction, Session, Sessions};
use crate::state::redis::SharedUse;
use crate::time::{Now, Timestamp};

/// The index of an issuer in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IssuerIndex(pub u16);

/// Size of a [`HeaderValue`] besides its bytes, which are reference-counted.
const SHARED_BYTES: usize = 40;

/// The identity of a token, independent of its encoding: SHA-256 of `iss`, a newline and `jti`; without a
/// `jti`, of its signing input. Never of the raw string: ECDSA's twin signatures and variants of base64 give
/// one signed message many strings, none of which may escape a revocation or restart an idle clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

/// A token with a valid signature under one key set and well-formed claims.
///
/// This does not mean that it is in force: expiry, revocation, idleness and policy are judged on every
/// request.
#[derive(Debug)]
pub struct VerifiedToken {
    /// The issuer.
    pub issuer: IssuerIndex,
    /// Its identity.
    pub id: TokenId,
    /// The first 12 hex digits of SHA-256 of `iss`, newline, `sub`, for logs.
    pub subject_hash: Option<Box<str>>,
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// The client claim.
    pub client: Option<Arc<str>>,
    /// The tenant claim.
    pub tenant: Option<Box<str>>,
    /// The role version claim.
    pub role_version: Option<u64>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// The audiences, in the token's order.
    pub audiences: Words,
    /// Whether none of them is an audience of the issuer's own, so that the token is valid only for the
    /// resources that it names.
    pub is_for_resources: bool,
    /// `auth_time`: when its subject authenticated.
    pub authenticated_at: Option<Timestamp>,
    /// The configured conditions that it meets.
    pub met: ConditionSet,
    /// Scopes, in the token's order.
    pub scopes: Words,
    /// Roles, in the token's order.
    pub roles: Words,
    /// What `cnf` binds it to.
    pub bound_to: Confirmation,
    /// What the upstream learns about it.
    pub identity: IdentityHeaders,
    /// The facts by which revocations are looked up.
    pub facts: TokenFacts,
    /// Results of recent judgements, so that the next need not look them up again.
    pub standing: TokenStanding,
}

/// What `cnf` binds a token to (RFC 7800): nothing, a client certificate, a key, or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// `x5t#S256`, decoded (RFC 8705 §3.1).
    pub certificate: Option<[u8; 32]>,
    /// `jkt`, decoded (RFC 9449 §6.1).
    pub key: Option<[u8; 32]>,
}

/// A list of words in one allocation: a cached token is seldom in the CPU cache, and every allocation that a
/// judgement touches costs as much as the rest of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Words(Box<str>);

/// The terminator of a word, which no word can contain.
const WORD_END: char = '\0';

impl Words {
    /// Joins words; `None` if one of them contains a NUL.
    #[must_use]
    pub fn new(words: &[&str]) -> Option<Self> {
        let joined: String = words.iter().flat_map(|word| [word, "\0"]).collect();
        (joined.split_terminator(WORD_END).count() == words.len()).then(|| Self(joined.into()))
    }

    /// The words, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator(WORD_END)
    }

    /// Whether `word` is among them.
    #[must_use]
    pub fn contains(&self, word: &str) -> bool {
        self.iter().any(|one| one == word)
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The period in which a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
}

impl Validity {
    /// Judges the period, allowing `leeway` at each bound (RFC 7519 §4.1.4 to §4.1.6).
    ///
    /// # Errors
    /// [`Reason::Expired`], [`Reason::NotYetValid`], [`Reason::IssuedInFuture`], in this order.
    pub fn judge(&self, leeway: Duration, now: Timestamp) -> Result<(), Reason> {
        self.judge_expiry(leeway, now)?;
        self.judge_not_before(leeway, now)?;
        self.judge_issued_at(leeway, now)
    }

    pub(super) fn judge_expiry(&self, leeway: Duration, now: Timestamp) -> Result<(), Reason> {
        if self.expires_at.plus(leeway) <= now { Err(Reason::Expired) } else { Ok(()) }
    }

    pub(super) fn judge_not_before(&self, leeway: Duration, now: Timestamp) -> Result<(), Reason> {
        let too_early = |not_before| not_before > now.plus(leeway);
        if self.not_before.is_some_and(too_early) { Err(Reason::NotYetValid) } else { Ok(()) }
    }

    pub(super) fn judge_issued_at(&self, leeway: Duration, now: Timestamp) -> Result<(), Reason> {
        if self.issued_at > now.plus(leeway) { Err(Reason::IssuedInFuture) } else { Ok(()) }
    }
}

impl VerifiedToken {
    /// The period in which it is valid.
    #[must_use]
    pub fn validity(&self) -> Validity {
        let Self { issued_at, expires_at, not_before, .. } = *self;
        Validity { issued_at, expires_at, not_before }
    }

    /// Checks that the connection may use it: a token bound to a certificate requires that certificate (RFC
    /// 8705 §3).
    ///
    /// # Errors
    /// [`Reason::CertificateMismatch`].
    pub fn judge_certificate(&self, presented: Option<&[u8; 32]>) -> Result<(), Reason> {
        match &self.bound_to.certificate {
            Some(bound) if Some(bound) != presented => Err(Reason::CertificateMismatch),
            Some(_) | None => Ok(()),
        }
    }

    /// The time from `iat` to `exp`.
    pub(super) fn lifetime(&self) -> Duration {
        self.expires_at.since(self.issued_at)
    }

    /// The memory it takes, as far as it can be counted.
    pub(super) fn size(&self) -> usize {
        let texts = [&self.subject_hash, &self.subject, &self.jti, &self.tenant];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let words = self.audiences.0.len()
            + self.scopes.0.len()
            + self.roles.0.len()
            + self.client.as_ref().map_or(0, |one| one.len());
        let header = size_of::<(HeaderName, HeaderValue)>() + SHARED_BYTES;
        let headers: usize = self.identity.sent.iter().map(|(_, value)| header + value.len()).sum();
        let omitted = self.identity.omitted.as_ref().map_or(0, |names| names.len());
        let names = self.facts.names.as_ref().map_or(0, |names| names.size());
        [size_of::<Self>(), texts, words, headers, omitted, names, self.met.size()].iter().sum()
    }

    /// Its session, if it was used: the one kept with the token, or, if it is missing or has left the
    /// table, the one in the table.
    pub(super) fn session(&self, sessions: &Sessions) -> Option<Known<'_>> {
        match self.standing.session() {
            Some(kept) if !kept.is_evicted() => Some(Known::Kept(kept)),
            kept => {
                let found = sessions.find(self.facts.token);
                if let Some(found) = &found {
                    self.standing.keep(found);
                }
                found.map(Known::Found).or(kept.map(Known::Kept))
            }
        }
    }

    /// Whether it was found in force under the same revocations: a single comparison while nothing was
    /// published since it was last judged.
    pub(super) fn is_known_in_force(&self, snapshot: &Snapshot) -> bool {
        self.standing.is_cleared(snapshot.generation())
    }

    /// Whether its first use on other replicas matters: an event lies no more than `leeway` before its issue,
    /// and they were not asked yet. Any use on them after that comes after the event.
    pub(super) fn is_first_use_in_question(
        &self,
        session: Option<&Session>,
        snapshot: &Snapshot,
        leeway: Duration,
    ) -> bool {
        let earliest = self.issued_at.minus(leeway);
        let facts = self.facts_with(session.map(Session::first_used_at));
        self.standing.first_use().is_none()
            && earliest < facts.issued_at
            && snapshot.would_end(&facts, earliest)
            && !snapshot.would_end(&facts, facts.issued_at)
    }

    /// Checks whether an event has ended it by `now`; `leeway` is how long it is accepted after its `exp`.
    ///
    /// A token was issued by the time it was first seen or used, whatever its `iat`: its issuer's clock may
    /// be ahead of the event that ends it.
    ///
    /// # Errors
    /// The reason it ended.
    pub(super) fn judge_revocations(
        &self,
        session: Option<&Session>,
        snapshot: &Snapshot,
        leeway: Duration,
        now: Now,
    ) -> Result<(), Reason> {
        let facts = self.facts_with(session.map(Session::first_used_at));
        match snapshot.judge(&facts, now) {
            Some(ended) => Err(ended.into()),
            None => {
                if snapshot.is_lasting(&facts, self.expires_at.plus(leeway)) {
                    self.standing.clear(snapshot.generation());
                }
                Ok(())
            }
        }
    }

    /// Limits the time of issue to `now`, because the token is here: an event from now on ends it, even if
    /// its issuer's clock is ahead.
    ///
    /// Cut-offs are whole seconds. A cut-off of the current second that would end the token only because of
    /// this rule is known already, so the token came after it and counts as issued in the next second.
    pub(super) fn seen_at(&mut self, now: Now, revocations: &Revocations) {
        let wall = now.wall;
        if self.issued_at <= wall {
            return;
        }
        let snapshot = revocations.load();
        let seen = TokenFacts { issued_at: wall, ..self.facts.clone() };
        let came_after = snapshot.judge(&seen, now).is_some() && snapshot.judge(&self.facts, now).is_none();
        let known_since = if came_after { Timestamp::from_secs(wall.as_secs() + 1) } else { wall };
        self.facts.issued_at = self.issued_at.min(known_since);
    }

    /// Takes over when the same token was first seen, as `seen`.
    pub(super) fn seen_as(&mut self, seen: &Self) {
        self.facts.issued_at = self.facts.issued_at.min(seen.facts_with(None).issued_at);
    }

    /// The facts for looking up revocations, for a token first used at this time; on another replica perhaps
    /// earlier.
    pub(super) fn facts_with(&self, first_used_at: Option<Timestamp>) -> TokenFacts {
        let uses = first_used_at.into_iter().chain(self.standing.first_use());
        TokenFacts { issued_at: uses.fold(self.facts.issued_at, Timestamp::min), ..self.facts.clone() }
    }

    /// Checks that it was not unused for too long, or returns what must be asked first.
    ///
    /// # Errors
    /// [`Reason::Idle`]; in a fleet also when the other replicas must be asked first, or cannot be.
    pub(super) fn judge_idle(
        &self,
        session: Option<&Session>,
        issuer: &Arc<str>,
        sessions: &Sessions,
        asked: Asked,
        now: Now,
    ) -> Result<(), NoPermit> {
        match sessions.judge(session, &self.introduction(issuer), asked.session(), now) {
            Idleness::InUse => Ok(()),
            Idleness::Idle => Err(Reason::Idle.into()),
            Idleness::Unavailable => Err(Reason::StateUnavailable.into()),
            Idleness::Ask(last_used_at) => {
                let (token, issuer) = (self.facts.token, self.issuer);
                Err(NoPermit::Ask(Ask::Session { token, issuer, last_used_at }))
            }
        }
    }

    /// The facts that its idle clock needs.
    pub(super) fn introduction<'a>(&'a self, issuer: &'a Arc<str>) -> Introduction<'a> {
        Introduction {
            token: self.facts.token,
            issuer,
            subject: self.facts.subject,
            client: self.client.as_ref(),
            names: self.facts.names.as_ref(),
            issued_at: self.issued_at,
            known_since: self.facts.issued_at,
            expires_at: self.expires_at,
        }
    }
}

impl Pass {
    /// Counts a request or bytes on a stream as a use of the token; `told` is what other replicas just
    /// answered.
    ///
    /// # Errors
    /// When it has gone idle.
    pub(super) fn count_use(
        &self,
        told: Option<SharedUse>,
        issuer: &Arc<str>,
        sessions: &Sessions,
        now: Now,
    ) -> Result<(), Idle> {
        let (token, kept) = (&self.token, self.token.session(sessions));
        let entered = sessions.begin(kept.as_deref(), &token.introduction(issuer), told, now)?;
        if let Some(entered) = entered {
            token.standing.keep(&entered);
        }
        Ok(())
    }
}

impl From<Ended> for Reason {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Token => Self::TokenRevoked,
            Ended::Session => Self::SessionRevoked,
            Ended::Subject => Self::SubjectRevoked,
            Ended::Client => Self::ClientRevoked,
            Ended::Issuer => Self::IssuerRevoked,
            Ended::Roles => Self::RoleChanged,
            Ended::BeforeState => Self::BeforeState,
        }
    }
}

impl TokenId {
    /// The SHA-256 of some bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }
}

impl fmt::Display for TokenId {
    /// Writes the first 12 hexadecimal digits, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// SHA-256 of an issuer, a newline and a name. Issuers contain no newline, so no two pairs collide.
pub(super) fn fingerprint(issuer: &str, of: &str) -> TokenId {
    TokenId::of(format!("{issuer}\n{of}").as_bytes())
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests;
