//! Proofs of signatures that are remembered, so that a token that comes again costs no signature.
//!
//! Bounded, and never a verdict: what is kept says that one string was signed under one key set. Knows neither keys nor
//! time; which proofs are still of use it is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;

use super::token::VerifiedToken;
use crate::identity::{AsIs, Key};

/// The string a token was presented as: its AES-GMAC under a key that only this table has.
///
/// Two strings of the greatest length agree under at most 2^11 of the 2^128 keys, and who does not know the key cannot
/// look for such a pair. The nonce may stay the same, because no tag is ever shown. This takes less than half the time
/// of a SHA-256 and, unlike comparing the strings, keeps no token in memory that somebody could present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ProofKey(Key);

/// That a token's signature is true under the key set of this generation.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) token: Arc<VerifiedToken>,
    pub(super) generation: u64,
}

type Shard = HashMap<ProofKey, Remembered, AsIs>;

/// The proofs of all workers.
#[derive(Debug)]
pub(super) struct Proofs {
    /// Without random numbers there is none, and nothing is remembered.
    seal: Option<LessSafeKey>,
    /// By the leading bits of the key, so that workers, who hold one only to copy a pointer, rarely meet.
    shards: Box<[Mutex<Shard>]>,
    capacity: usize,
    held: AtomicUsize,
    cursor: AtomicUsize,
}

/// Proofs of one shard, on average, when the table is full.
const SHARD: usize = 256;
/// Proofs that are looked at when one must leave for room.
const SAMPLE: usize = 16;

impl Proofs {
    /// An empty table of at most `capacity`.
    pub(super) fn new(capacity: usize) -> Self {
        let mut secret = [0; 16];
        let random = rand::fill(&mut secret);
        let seal = random.and_then(|()| UnboundKey::new(&AES_128_GCM, &secret)).ok().map(LessSafeKey::new);
        let shards = (capacity / SHARD).next_power_of_two().clamp(1, 1 << 16);
        Self {
            seal,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            capacity,
            held: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
        }
    }

    /// What a token, as it was presented, is remembered by.
    pub(super) fn key(&self, presented: &[u8]) -> Option<ProofKey> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = self.seal.as_ref()?.seal_in_place_separate_tag(nonce, Aad::from(presented), &mut []);
        tag.ok()?.as_ref().first_chunk().map(|tag| ProofKey(Key::from_bytes(*tag)))
    }

    pub(super) fn get(&self, key: ProofKey) -> Option<Remembered> {
        self.shard(key).get(&key).cloned()
    }

    /// Remembers a proof, if need be in place of the one that was used least recently among a few.
    pub(super) fn put(&self, key: ProofKey, proof: Remembered) {
        let mut shard = self.shard(key);
        if shard.insert(key, proof).is_some() || self.held.fetch_add(1, Ordering::Relaxed) < self.capacity {
            return;
        }
        let others = shard.iter().filter(|(other, _)| **other != key).take(SAMPLE);
        let oldest = others.min_by_key(|(_, proof)| proof.token.standing.last_used_at()).map(|(key, _)| *key);
        // In a shard of its own there is no other; the table is then a few above its capacity.
        if let Some(oldest) = oldest {
            shard.remove(&oldest);
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Looks through the next `share`-th part of the table and keeps what is still of use.
    pub(super) fn sweep(&self, share: usize, is_of_use: impl Fn(&VerifiedToken) -> bool) {
        for _ in 0..self.shards.len().div_ceil(share.max(1)) {
            let next = self.cursor.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let Some(shard) = self.shards.get(next) else { continue };
            let mut shard = lock(shard);
            let before = shard.len();
            shard.retain(|_, proof| is_of_use(&proof.token));
            self.held.fetch_sub(before - shard.len(), Ordering::Relaxed);
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }

    fn shard(&self, key: ProofKey) -> MutexGuard<'_, Shard> {
        let at = (u128::from(key.0.high()) * self.shards.len() as u128) >> 64;
        #[expect(
            clippy::indexing_slicing,
            clippy::cast_possible_truncation,
            reason = "a fraction of the length"
        )]
        lock(&self.shards[at as usize])
    }
}

/// Nothing that is done under a lock leaves a shard half changed.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
