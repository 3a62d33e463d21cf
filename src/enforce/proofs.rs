//! Caches verified signatures, so that a repeated token costs no signature verification.
//!
//! A moka cache, bounded in bytes. An entry is never a verdict: it says that one string was signed under one
//! key set. This module knows neither keys nor events.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use moka::policy::{EvictionPolicy, Expiry};
use moka::sync::Cache;

use super::token::VerifiedToken;
use crate::identity::{AsIs, Key};
use crate::sessions::limits::SessionLimits;
use crate::state::record::PerIssuer;
use crate::time::Monotonic;

mod at_hand;

use at_hand::{AtHand, REFRESH};

/// The key of a presented token: its AES-GMAC under a key that only this table has.
///
/// Two strings of the maximum length collide under at most 2^11 of the 2^128 keys, and an attacker who does
/// not know the key cannot search for such a pair. The nonce may be constant, because no tag is ever shown.
/// This takes less than half the time of a SHA-256 and, unlike comparing the strings, keeps no token in
/// memory that could be stolen and presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ProofKey(Key);

#[cfg(test)]
impl From<Key> for ProofKey {
    fn from(key: Key) -> Self {
        Self(key)
    }
}

impl ProofKey {
    /// Its slot in a table of this size.
    pub(super) fn slot(self, slots: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the last bits are as good as all")]
        let high = self.0.high() as usize;
        high.checked_rem(slots).unwrap_or_default()
    }
}

/// Proof that a token's signature is valid under the key set of this generation.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) token: Arc<VerifiedToken>,
    pub(super) generation: u64,
}

/// Minimum weight of a proof in bytes. A table for `tokens` proofs may use this much for each: more than a
/// token with claims of usual length needs.
const UNIT: u32 = 2 * 1024;
/// What a proof takes besides its token: the overhead of moka and of this table.
const OWN: usize = 360;

/// The proofs of all workers.
pub(super) struct Proofs {
    /// Distinguishes this table's proofs from those of another table in [`AT_HAND`].
    id: u64,
    /// The MAC key. `None` if there are no random numbers; nothing is cached then.
    seal: Option<LessSafeKey>,
    cache: Cache<ProofKey, Remembered, AsIs>,
    /// How many proofs a worker keeps in each generation of its own.
    at_hand: usize,
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").field("proofs", &self.cache.entry_count()).finish_non_exhaustive()
    }
}

static TABLES: AtomicU64 = AtomicU64::new(0);

impl Proofs {
    /// Creates an empty table with space for the proofs of this many tokens of usual size; `limits` determine
    /// how long each is kept.
    pub(super) fn new(tokens: usize, limits: Arc<ArcSwap<PerIssuer<SessionLimits>>>) -> Self {
        let mut secret = [0; 16];
        let random = rand::fill(&mut secret);
        let seal = random.and_then(|()| UnboundKey::new(&AES_128_GCM, &secret)).ok().map(LessSafeKey::new);
        let capacity = u64::try_from(tokens).unwrap_or(u64::MAX).saturating_mul(UNIT.into());
        let cache = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_key, proof: &Remembered| weight(&proof.token))
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Lifetimes(limits))
            .build_with_hasher(AsIs::default());
        let at_hand = (tokens / SHARE).clamp(FEWEST_AT_HAND, MOST_AT_HAND);
        Self { id: TABLES.fetch_add(1, Ordering::Relaxed), seal, cache, at_hand }
    }

    /// The key of a token as it was presented.
    pub(super) fn key(&self, presented: &[u8]) -> Option<ProofKey> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = self.seal.as_ref()?.seal_in_place_separate_tag(nonce, Aad::from(presented), &mut []);
        tag.ok()?.as_ref().first_chunk().map(|tag| ProofKey(Key::from_bytes(*tag)))
    }

    /// Finds a proof. A recently used one comes from the worker's own table; moka sees its use once per
    /// [`REFRESH`].
    pub(super) fn get(&self, key: ProofKey, now: Monotonic) -> Option<Remembered> {
        AT_HAND.with_borrow_mut(|at_hand| {
            at_hand.get(self, key, now).or_else(|| {
                let proof = self.cache.get(&key)?;
                at_hand.put(self, key, proof.clone(), now);
                Some(proof)
            })
        })
    }

    /// Caches a proof; if there is no space, evicts the least recently used ones.
    pub(super) fn put(&self, key: ProofKey, proof: Remembered, now: Monotonic) {
        self.cache.insert(key, proof.clone());
        AT_HAND.with_borrow_mut(|at_hand| at_hand.put(self, key, proof, now));
    }

    /// Runs pending maintenance: evicts what is expired or does not fit.
    pub(super) fn sweep(&self) {
        self.cache.run_pending_tasks();
    }

    /// The number of proofs and their total weight in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> (u64, u64) {
        self.sweep();
        (self.cache.entry_count(), self.cache.weighted_size())
    }
}

/// The weight of a proof, as far as its memory can be counted.
fn weight(token: &VerifiedToken) -> u32 {
    u32::try_from(OWN + token.size()).unwrap_or(u32::MAX).max(UNIT)
}

/// Lifetimes of unused proofs in moka: until the token is idle or dead.
struct Lifetimes(Arc<ArcSwap<PerIssuer<SessionLimits>>>);

impl Lifetimes {
    fn keep(&self, token: &VerifiedToken, age: Duration) -> Duration {
        self.0.load().of_key(token.facts.issuer).keep(token.lifetime(), age)
    }
}

impl Expiry<ProofKey, Remembered> for Lifetimes {
    fn expire_after_create(&self, _: &ProofKey, proof: &Remembered, _: Instant) -> Option<Duration> {
        Some(self.keep(&proof.token, Duration::ZERO).max(REFRESH))
    }

    fn expire_after_read(
        &self,
        _: &ProofKey,
        proof: &Remembered,
        read_at: Instant,
        _left: Option<Duration>,
        created_at: Instant,
    ) -> Option<Duration> {
        let age = read_at.saturating_duration_since(created_at);
        Some(self.keep(&proof.token, age))
    }
}

/// The share of the table's places that a worker may have in a generation of its own.
const SHARE: usize = 8;
/// The limits of that, for small tables and for large ones.
const FEWEST_AT_HAND: usize = 256;
const MOST_AT_HAND: usize = 16 * 1024;

thread_local! {
    /// The proofs that this worker used most recently. A lookup in moka takes a lock-free map, an LRU record
    /// and a new deadline: several times the cost of the rest of a judgement, and connections send the same
    /// token again and again.
    static AT_HAND: RefCell<AtHand> = RefCell::new(AtHand::default());
}

#[cfg(test)]
mod tests;
