//! The proofs that one worker used last, so that it rarely has to look into the table of all workers.
//!
//! An approximate LRU cache of two generations: a proof that is used moves into the young one. When a proof is
//! added and the young one is full or [`REFRESH`] old, it becomes the old one, and what was left there is dropped.
//! So all proofs in use are at hand, up to the size of a generation, and no others for long.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use super::{ProofKey, Proofs, Remembered};
use crate::identity::AsIs;
use crate::time::Monotonic;

/// How long a proof is used before the table of all workers is asked again, which then knows that it is in use.
pub(super) const REFRESH: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct AtHand {
    young: HashMap<ProofKey, Held, AsIs>,
    old: HashMap<ProofKey, Held, AsIs>,
    /// When the young generation began.
    began: Option<Monotonic>,
}

struct Held {
    /// The table that the proof is from.
    table: u64,
    proof: Remembered,
    /// When that table was last asked.
    seen: Monotonic,
}

impl Held {
    fn is_current(&self, table: u64, now: Monotonic) -> bool {
        self.table == table && now.since(self.seen) < REFRESH
    }
}

impl AtHand {
    /// The proof, if it came from this table less than [`REFRESH`] ago.
    pub(super) fn get(&mut self, table: &Proofs, key: ProofKey, now: Monotonic) -> Option<Remembered> {
        if let Some(held) = self.young.get(&key) {
            return held.is_current(table.id, now).then(|| held.proof.clone());
        }
        let held = self.old.remove(&key).filter(|held| held.is_current(table.id, now))?;
        let proof = held.proof.clone();
        self.keep(key, held, now, table.at_hand);
        Some(proof)
    }

    /// Keeps a proof of this table.
    pub(super) fn put(&mut self, table: &Proofs, key: ProofKey, proof: Remembered, now: Monotonic) {
        self.keep(key, Held { table: table.id, proof, seen: now }, now, table.at_hand);
    }

    fn keep(&mut self, key: ProofKey, held: Held, now: Monotonic, most: usize) {
        let is_over = |began| now.since(began) >= REFRESH;
        if self.young.len() >= most || self.began.is_none_or(is_over) {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            // Room for as many as there were, so that a crowd of tokens leaves nothing behind.
            self.young.shrink_to(self.old.len());
            self.began = Some(now);
        }
        self.young.insert(key, held);
    }

    /// The number of proofs in both generations.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
