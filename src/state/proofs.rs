//! What replicas share about proofs of possession: which were used, and the keys of the nonces that they carry.
//!
//! Of a store that nobody shares the gate's own memory is enough, and this is not asked.

use std::time::Duration;

use super::{Store, StoreError};
use crate::identity::Key;

impl Store {
    /// Uses a proof: whether nobody who shares the store used it before. It is kept for so long.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn claim_proof(&self, proof: Key, keep: Duration) -> Result<bool, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.claim_proof(proof, keep).await,
            None => Ok(true),
        }
    }

    /// The key of nonces for a period: `fresh`, unless another replica has made one.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn nonce_key(&self, period: i64, fresh: &[u8], keep: Duration) -> Result<Vec<u8>, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.nonce_key(period, fresh, keep).await,
            None => Ok(fresh.to_vec()),
        }
    }
}
