//! What replicas share about proofs of possession: used proofs, and the keys of nonces.
//!
//! If the store is not shared, the gate keeps them in its own memory and this module is not used.

use std::time::Duration;

use super::{Store, StoreError};
use crate::identity::Key;

impl Store {
    /// Claims a proof for `keep`; true if no replica has used it before.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn claim_proof(&self, proof: Key, keep: Duration) -> Result<bool, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.claim_proof(proof, keep).await,
            None => Ok(true),
        }
    }

    /// Returns the nonce key of a period: `fresh`, unless another replica has already set one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    #[tokio::test]
    async fn a_store_that_nobody_shares_leaves_proofs_to_the_gate() {
        let store = Store::in_memory(Now::at_millis(0)).unwrap();
        let (proof, keep) = (Key::from_bytes([1; 16]), Duration::from_secs(1));
        for period in [7, 7, 8] {
            assert_eq!(store.claim_proof(proof, keep).await.ok(), Some(true));
            let fresh = [u8::try_from(period).unwrap(); 32];
            assert_eq!(store.nonce_key(period, &fresh, keep).await.ok(), Some(fresh.to_vec()));
        }
    }
}
