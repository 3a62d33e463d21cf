//! Used proofs of possession (RFC 9449 §11.1), and the keys of the nonces in proofs.
//!
//! Exact and bounded: nothing that could be reused is forgotten, and what does not fit is rejected. Replicas share it
//! through the store. Knows names of proofs, not what a proof is.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::identity::{AsIs, Key};
use crate::state::Store;
use crate::time::Monotonic;

pub mod nonces;

use nonces::NonceKeys;

/// What the workers lock one at a time.
const SHARDS: usize = 32;
/// How much longer than needed a proof is kept: the clocks that measure it may differ.
const MARGIN: Duration = Duration::from_secs(1);
/// The same between replicas, whose wall clocks may differ by more.
const SHARED_MARGIN: Duration = Duration::from_secs(60);

/// Whether a proof was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofUse {
    /// This is its first use anywhere.
    First,
    /// It was used before.
    Again,
    /// That cannot be told: too many are remembered, or the shared store does not answer.
    Unknown,
}

/// The proofs that were used and could be used again.
#[derive(Debug)]
pub struct Replays {
    shards: [Mutex<ReplayShard>; SHARDS],
    tracked: AtomicUsize,
    most: AtomicUsize,
    nonces: NonceKeys,
    /// What replicas share.
    store: Option<Store>,
}

#[derive(Debug, Default)]
struct ReplayShard {
    used: HashSet<Key, AsIs>,
    /// By the second in which they may be forgotten.
    ends: BTreeMap<i64, Vec<Key>>,
}

impl Replays {
    /// None yet, and at most so many. `store`: the one that replicas share.
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

    /// Remembers at most so many from now on.
    pub fn reconfigure(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many are remembered.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracked.load(Ordering::Relaxed)
    }

    /// The keys of nonces.
    #[must_use]
    pub fn nonces(&self) -> &NonceKeys {
        &self.nonces
    }

    /// Uses a proof that is no longer accepted after `keep`. What this gate remembers is asked first.
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

/// Nothing here panics half way, so what a poisoned lock guards is whole.
fn lock(shard: &Mutex<ReplayShard>) -> MutexGuard<'_, ReplayShard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
