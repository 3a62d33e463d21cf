//! Used proofs of possession (RFC 9449 §11.1), and the keys of the nonces in proofs.
//!
//! Exact and bounded: no proof that could be reused is forgotten, and one that does not fit is rejected.
//! Replicas share used proofs through the store. This room knows names of proofs, not what a proof is.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::identity::{AsIs, Key};
use crate::state::Store;
use crate::time::Monotonic;

pub mod nonces;

use nonces::NonceKeys;

/// Number of shards, each behind its own lock.
const SHARDS: usize = 32;
/// How much longer than needed a proof is kept, because the clocks that measure it may differ.
const MARGIN: Duration = Duration::from_secs(1);
/// The same between replicas, whose wall clocks may differ by more.
const SHARED_MARGIN: Duration = Duration::from_secs(60);

/// Whether a proof was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofUse {
    /// This is its first use on any replica.
    First,
    /// It was used before.
    Again,
    /// Unknown: too many proofs are remembered, or the shared store does not answer.
    Unknown,
}

/// Proofs that were used and could be used again.
#[derive(Debug)]
pub struct Replays {
    shards: [Mutex<ReplayShard>; SHARDS],
    tracked: AtomicUsize,
    most: AtomicUsize,
    nonces: NonceKeys,
    /// The store that replicas share.
    store: Option<Store>,
}

#[derive(Debug, Default)]
struct ReplayShard {
    used: HashSet<Key, AsIs>,
    /// Proofs by the second in which they may be forgotten.
    ends: BTreeMap<i64, Vec<Key>>,
}

impl Replays {
    /// Creates an empty set of at most `most` proofs. `store` is the one that replicas share.
    #[must_use]
    pub fn new(most: usize, store: Option<Store>) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            tracked: AtomicUsize::new(0),
            most: AtomicUsize::new(most),
            nonces: NonceKeys::new(store.clone()),
            store,
        }
    }

    /// Changes the maximum number of remembered proofs.
    pub fn reconfigure(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The number of remembered proofs.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracked.load(Ordering::Relaxed)
    }

    /// The keys of nonces.
    #[must_use]
    pub fn nonces(&self) -> &NonceKeys {
        &self.nonces
    }

    /// Claims a proof that is no longer accepted after `keep`. Checks what this gate remembers first.
    pub async fn claim(&self, proof: Key, keep: Duration, now: Monotonic) -> ProofUse {
        match (self.claim_here(proof, keep, now), &self.store) {
            (ProofUse::First, Some(store)) => {
                match store.claim_proof(proof, keep.saturating_add(SHARED_MARGIN)).await {
                    Ok(true) => ProofUse::First,
                    Ok(false) => ProofUse::Again,
                    Err(_counted) => ProofUse::Unknown,
                }
            }
            (told, _) => told,
        }
    }

    fn claim_here(&self, proof: Key, keep: Duration, now: Monotonic) -> ProofUse {
        let most = self.most.load(Ordering::Relaxed);
        if self.tracked() >= most {
            self.shards.iter().for_each(|shard| self.forget(&mut lock(shard), now));
        }
        let Some(shard) = self.shards.get(proof.high() as usize % SHARDS) else { return ProofUse::Unknown };
        let mut shard = lock(shard);
        self.forget(&mut shard, now);
        if shard.used.contains(&proof) {
            return ProofUse::Again;
        }
        if self.tracked.fetch_add(1, Ordering::Relaxed) >= most {
            self.tracked.fetch_sub(1, Ordering::Relaxed);
            return ProofUse::Unknown;
        }
        shard.used.insert(proof);
        let end = now.plus(keep).plus(MARGIN).as_millis().div_euclid(1000) + 1;
        shard.ends.entry(end).or_default().push(proof);
        ProofUse::First
    }

    fn forget(&self, shard: &mut ReplayShard, now: Monotonic) {
        let second = now.as_millis().div_euclid(1000);
        while let Some(first) = shard.ends.first_entry().filter(|first| *first.key() <= second) {
            for proof in first.remove() {
                shard.used.remove(&proof);
                self.tracked.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Nothing panics while holding one of these locks, so the data behind a poisoned lock is consistent.
fn lock(shard: &Mutex<ReplayShard>) -> MutexGuard<'_, ReplayShard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
