//! Verifies tokens with the keys of their issuers, and caches proofs of signatures and faults of bad tokens.
//!
//! An entry says that a signature is valid under one key set, or which check a token fails under it; it is
//! never a verdict. Time, keys and all later checks are judged on every request.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use prometheus::{Histogram, IntCounter};

use super::bearer::BearerToken;
use super::conditions::table::{ConditionSet, ConditionTable, TokenCondition};
use super::decide::{Ask, Asked, NoPermit, TrustedIssuer};
use super::denial::Reason;
use super::faults::{Faults, LastingFault};
use super::first_seen::FirstSeen;
use super::policy::IdentitySettings;
use super::proofs::{ProofKey, Proofs, Remembered};
use super::token::{IssuerIndex, VerifiedToken};
use crate::jose::jws::Jws;
use crate::keys::key::VerificationKey;
use crate::keys::set::KeySet;
use crate::keys::store::{Availability, WantedKey};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::time::{Monotonic, Now, Timestamp};

/// Maximum number of keys tried for one token, so that one request cannot cost many signature verifications.
const MAX_CANDIDATES: usize = 8;

/// Maximum length of a logged `kid` in characters.
const MAX_LOGGED_KID: usize = 64;

/// Verifies tokens, and caches the proofs.
#[derive(Debug)]
pub(super) struct TokenVerifier {
    issuers: Vec<TrustedIssuer>,
    /// Difference between our clock and `iat`, by issuer.
    skews: Vec<Histogram>,
    identity: IdentitySettings,
    /// All conditions that tokens are evaluated against when they are verified.
    conditions: ConditionTable,
    /// The conditions that each issuer's tokens must meet.
    needed: Vec<ConditionSet>,
    proofs: Arc<Proofs>,
    /// Uses the keys of `proofs`, so both are kept and replaced together.
    faults: Arc<Faults>,
    first_seen: Arc<FirstSeen>,
    hits: IntCounter,
    misses: IntCounter,
}

impl TokenVerifier {
    pub(super) fn new(
        issuers: Vec<TrustedIssuer>,
        identity: IdentitySettings,
        mut conditions: ConditionTable,
        proofs: usize,
        sessions: &Sessions,
        metrics: &Metrics,
    ) -> Self {
        let skew = |issuer: &TrustedIssuer| metrics.clock_skew.with_label_values(&[&issuer.rules.issuer]);
        let of_issuer = |issuer: &TrustedIssuer| {
            conditions.set(issuer.rules.conditions.iter().cloned().map(TokenCondition::Claim))
        };
        Self {
            needed: issuers.iter().map(of_issuer).collect(),
            conditions,
            skews: issuers.iter().map(skew).collect(),
            issuers,
            identity,
            proofs: Arc::new(Proofs::new(proofs, sessions.limits())),
            faults: Arc::new(Faults::new()),
            first_seen: Arc::new(FirstSeen::new(proofs)),
            hits: metrics.proof_cache.with_label_values(&["hit"]),
            misses: metrics.proof_cache.with_label_values(&["miss"]),
        }
    }

    pub(super) fn issuer(&self, index: IssuerIndex) -> Option<&TrustedIssuer> {
        self.issuers.get(usize::from(index.0))
    }

    /// The key by which a presented token is cached.
    pub(super) fn proof_key(&self, bearer: BearerToken<'_>) -> Option<ProofKey> {
        self.proofs.key(bearer.as_bytes())
    }

    /// The cached proof, if it is valid under the key set in force now.
    pub(super) fn cached(
        &self,
        key: Option<ProofKey>,
        now: Monotonic,
    ) -> Option<(Arc<VerifiedToken>, &TrustedIssuer)> {
        let found = self.seen(key, now);
        if found.is_some() {
            self.hits.inc()
        } else {
            self.misses.inc()
        }
        found
    }

    /// As [`Self::cached`], without counting a hit or miss.
    pub(super) fn seen(
        &self,
        key: Option<ProofKey>,
        now: Monotonic,
    ) -> Option<(Arc<VerifiedToken>, &TrustedIssuer)> {
        let proof = self.proofs.get(key?, now)?;
        let issuer = self.issuer(proof.token.issuer)?;
        (proof.generation == issuer.keys.generation()).then_some((proof.token, issuer))
    }

    /// Caches that a token's signature is valid under the key set of this generation. `is_dated` is whether
    /// the token has an `iat`.
    pub(super) fn remember(
        &self,
        key: Option<ProofKey>,
        (token, is_dated): (&Arc<VerifiedToken>, bool),
        generation: u64,
        now: Now,
    ) {
        if is_dated {
            self.observe_skew(token, now.wall);
        }
        if let Some(key) = key {
            self.proofs.put(key, Remembered { token: Arc::clone(token), generation }, now.monotonic);
        }
    }

    /// The fault of a token, if it was found recently, under the key set in force now.
    pub(super) fn fault(&self, key: Option<ProofKey>, now: Monotonic) -> Option<Arc<LastingFault>> {
        let fault = self.faults.get(key?, now)?;
        let issuer = fault.claimed.as_ref().and_then(|claimed| self.issuer(claimed.issuer));
        let in_force = issuer.map(|issuer| issuer.keys.generation());
        (fault.generation.is_none() || fault.generation == in_force).then_some(fault)
    }

    /// Caches the fault of a token.
    pub(super) fn note_fault(&self, key: ProofKey, fault: LastingFault, now: Monotonic) {
        self.faults.put(key, fault, now);
    }

    /// Takes over the proofs and faults of another verifier if this one would find the same: for the same
    /// issuers with the same keys and rules, and the same identity headers.
    ///
    /// The times at which tokens were first seen are always taken over.
    pub(super) fn inherit(&mut self, other: &Self) {
        self.first_seen = Arc::clone(&other.first_seen);
        let same = |(own, other): (&TrustedIssuer, &TrustedIssuer)| {
            own.rules == other.rules && Arc::ptr_eq(&own.keys, &other.keys)
        };
        if self.issuers.len() == other.issuers.len()
            && self.issuers.iter().zip(&other.issuers).all(same)
            && self.identity == other.identity
            && self.conditions == other.conditions
        {
            self.proofs = Arc::clone(&other.proofs);
            self.faults = Arc::clone(&other.faults);
        }
    }

    /// Drops proofs of tokens that are idle or dead, and old faults.
    pub(super) fn sweep(&self, now: Monotonic) {
        self.proofs.sweep();
        self.faults.sweep(now);
    }

    /// The number of faults.
    #[cfg(test)]
    pub(super) fn faults(&self) -> usize {
        self.faults.len()
    }

    /// The number of proofs and their total weight in bytes.
    #[cfg(test)]
    pub(super) fn proofs(&self) -> (u64, u64) {
        self.proofs.size()
    }

    fn observe_skew(&self, token: &VerifiedToken, now: Timestamp) {
        if let Some(skew) = self.skews.get(usize::from(token.issuer.0)) {
            skew.observe(now.since(token.issued_at).as_secs_f64() - token.issued_at.since(now).as_secs_f64());
        }
    }

    pub(super) fn issuers(&self) -> &[TrustedIssuer] {
        &self.issuers
    }

    /// When tokens without `iat` were first seen.
    pub(super) fn first_seen(&self) -> &FirstSeen {
        &self.first_seen
    }

    /// All conditions that tokens are evaluated against.
    pub(super) fn conditions(&self) -> &ConditionTable {
        &self.conditions
    }

    /// Checks that a token meets the conditions of its issuer.
    pub(super) fn judge_conditions(&self, token: &VerifiedToken) -> Result<(), Reason> {
        let needed = self.needed.get(usize::from(token.issuer.0)).ok_or(Reason::UnknownIssuer)?;
        if token.met.holds(needed) { Ok(()) } else { Err(Reason::ClaimCondition) }
    }

    /// The identity settings for upstreams.
    pub(super) fn identity(&self) -> &IdentitySettings {
        &self.identity
    }
}

impl TrustedIssuer {
    /// Checks that the keys are usable: keys that were never loaded or not confirmed for too long verify
    /// nothing.
    pub(super) fn check_keys(&self, now: Now) -> Result<(), Reason> {
        match self.keys.availability(now) {
            Availability::Usable => Ok(()),
            Availability::NeverLoaded | Availability::TooOld => Err(Reason::KeysUnavailable),
        }
    }

    /// Checks that one of the keys may have made a token's signature.
    pub(super) fn check_key(
        &self,
        keys: &KeySet,
        algorithm: Algorithm,
        jws: &Jws<'_>,
    ) -> Result<(), Unproved> {
        if let Some(kid) = jws.kid().filter(|kid| !keys.knows(kid)) {
            return Err(Unproved { wanted: WantedKey::key(kid), reason: Reason::UnknownKey });
        }
        // The key exists, or would if the token named one, but the algorithm does not fit it.
        match candidates(keys, algorithm, jws).next() {
            Some(_) => Ok(()),
            None => Err(Unproved::by(keys.generation(), Reason::BadAlgorithm)),
        }
    }

    /// The refusal of an unverified token: a question if a newer key set may verify it and was not asked for
    /// yet.
    pub(super) fn refuse(
        &self,
        index: IssuerIndex,
        Unproved { wanted, reason }: Unproved,
        asked: Asked,
        now: Monotonic,
    ) -> NoPermit {
        if asked.keys() || !self.keys.worth_asking(&wanted, now) {
            return reason.into();
        }
        NoPermit::Ask(Ask::Keys { issuer: index, wanted, otherwise: reason })
    }
}

/// The key that a set lacks to verify a token, and the reason to reject the token for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unproved {
    wanted: WantedKey,
    reason: Reason,
}

impl Unproved {
    /// No key of the set with this generation verifies it.
    pub(super) fn by(generation: u64, reason: Reason) -> Self {
        Self { wanted: WantedKey::OtherThan(generation), reason }
    }
}

/// The keys that may have made the signature.
fn candidates<'k>(
    keys: &'k KeySet,
    algorithm: Algorithm,
    jws: &Jws<'_>,
) -> impl Iterator<Item = &'k VerificationKey> + use<'k> {
    keys.candidates(jws.kid(), algorithm).take(MAX_CANDIDATES)
}

/// Checks that one of the keys made the signature.
pub(super) fn check_signature(keys: &KeySet, algorithm: Algorithm, jws: &Jws<'_>) -> Result<(), Unproved> {
    let made_it =
        candidates(keys, algorithm, jws).any(|key| key.verify(algorithm, jws.signing_input, &jws.signature));
    if made_it { Ok(()) } else { Err(Unproved::by(keys.generation(), Reason::BadSignature)) }
}

/// Makes a `kid` or client safe to log: anyone may have sent it.
pub(super) fn loggable(text: &str) -> Box<str> {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(MAX_LOGGED_KID).map(visible).collect::<String>().into()
}

#[cfg(test)]
mod tests;
