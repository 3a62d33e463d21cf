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
use crate::state::redis::Told;
use crate::time::{Now, Timestamp};

/// Names an issuer by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IssuerIndex(pub u16);

/// What a value of [`HeaderValue`] takes besides its bytes: they are shared, and counted.
const SHARED_BYTES: usize = 40;

/// What a token is, whatever string it arrived in: SHA-256 of `iss`, a newline and `jti`; without `jti`, of its signing
/// input. Never of the raw string: ECDSA's twin signature and other spellings of base64 make many strings of one signed
/// message, and none of them may escape a revocation or restart an idle clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

/// A token whose signature is true under one key set and whose claims have the right form.
///
/// Says nothing of whether it is in force: expiry, revocation, idleness and policy are judged on every request.
#[derive(Debug)]
pub struct VerifiedToken {
    /// Whose token it is.
    pub issuer: IssuerIndex,
    /// Its identity.
    pub id: TokenId,
    /// The first 12 hex digits of SHA-256 of `iss`, newline, `sub`; what logs carry.
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
    /// None of them is one of the issuer's own: it is good for the resources that it names, and for nothing else.
    pub is_for_resources: bool,
    /// `auth_time`: when its subject was authenticated.
    pub authenticated_at: Option<Timestamp>,
    /// The conditions of the configuration that it meets.
    pub met: ConditionSet,
    /// Scopes, in the token's order.
    pub scopes: Words,
    /// Roles, in the token's order.
    pub roles: Words,
    /// What `cnf` binds it to.
    pub bound_to: Confirmation,
    /// What the upstream learns of it.
    pub identity: IdentityHeaders,
    /// What revocations are looked up by.
    pub facts: TokenFacts,
    /// What the last judgements found, so that the next need not look it up again.
    pub standing: TokenStanding,
}

/// What a token is bound to (RFC 7800 `cnf`): nothing, a client certificate, a key, or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// `x5t#S256`, decoded (RFC 8705 §3.1).
    pub certificate: Option<[u8; 32]>,
    /// `jkt`, decoded (RFC 9449 §6.1).
    pub key: Option<[u8; 32]>,
}

/// A list of words in one piece of memory: a remembered token is seldom in the processor's cache, and every piece that
/// a judgement touches costs as much as the rest of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Words(Box<str>);

/// What ends a word, and so cannot be part of one.
const WORD_END: char = '\0';

impl Words {
    /// Joins words; `None` when one of them holds a NUL.
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

/// The time a token is good for.
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
    /// Judges the time, each bound with `leeway` (RFC 7519 §4.1.4 to §4.1.6).
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
    /// The time it is good for.
    #[must_use]
    pub fn validity(&self) -> Validity {
        let Self { issued_at, expires_at, not_before, .. } = *self;
        Validity { issued_at, expires_at, not_before }
    }

    /// Whether the connection may use it: a token bound to a certificate needs that one (RFC 8705 §3).
    ///
    /// # Errors
    /// [`Reason::CertificateMismatch`].
    pub fn judge_certificate(&self, presented: Option<&[u8; 32]>) -> Result<(), Reason> {
        match &self.bound_to.certificate {
            Some(bound) if Some(bound) != presented => Err(Reason::CertificateMismatch),
            Some(_) | None => Ok(()),
        }
    }

    /// From `iat` to `exp`.
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
        size_of::<Self>() + texts + words + headers + omitted + names + self.met.size()
    }

    /// Its idle clock, if it was used: the one that was kept with it or, at first sight and when that one has left the
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

    /// Whether it was found in force under the same revocations, and stays so: one comparison while nothing was published
    /// since it was last judged.
    pub(super) fn is_known_in_force(&self, snapshot: &Snapshot) -> bool {
        self.standing.is_cleared(snapshot.generation())
    }

    /// Whether its first use on other replicas decides: an event lies no more than `leeway` before its issue, and they were
    /// not asked yet. What they do from then on comes after that event.
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

    /// Whether an event has ended it by `now`; `leeway` is how long it is accepted after its `exp`.
    ///
    /// A token was issued by the time it was first seen or used, whatever its `iat` says: the clock of its issuer may be
    /// ahead of the event that ends it.
    ///
    /// # Errors
    /// What ended it.
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

    /// Here it is, at `now`, so it was issued: an event from now on ends it, even if the clock of its issuer is ahead.
    ///
    /// Cut-offs are whole seconds. One of this second that ends it by this rule alone is there already, so the token came
    /// after it, and counts as issued in the next second.
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

    /// It was here before, as `seen`.
    pub(super) fn seen_as(&mut self, seen: &Self) {
        self.facts.issued_at = self.facts.issued_at.min(seen.facts_with(None).issued_at);
    }

    /// What revocations are looked up by, for a token that was first used then; on another replica perhaps earlier.
    pub(super) fn facts_with(&self, first_used_at: Option<Timestamp>) -> TokenFacts {
        let uses = first_used_at.into_iter().chain(self.standing.first_use());
        TokenFacts { issued_at: uses.fold(self.facts.issued_at, Timestamp::min), ..self.facts.clone() }
    }

    /// Whether it was unused for too long, or what must be asked before that is known.
    ///
    /// # Errors
    /// [`Reason::Idle`]; in a fleet also that the other replicas must be asked first, or cannot be.
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

    /// What its idle clock needs to know of it.
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
    /// Counts a request or the bytes of a stream as a use of the token; `told` is what other replicas just answered.
    ///
    /// # Errors
    /// When it is idle by now.
    pub(super) fn count_use(
        &self,
        told: Option<Told>,
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
    /// The first 12 hexadecimal digits: what logs carry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// SHA-256 of an issuer, a newline and something of its own. Issuers hold no newline, so no two pairs meet.
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
