//! The registry of which authority signs for an issuer: two gates with different keys would reject each other's tokens.
//!
//! Only the ids of public keys are written. Private keys never enter the store: a reader of Redis could
//! sign tokens with them.

use std::time::Duration;

use super::SharedStore;
use crate::state::StoreError;

/// How long a registration is valid without renewal, so that an authority that has ended does not block the next one.
const LEASE: Duration = Duration::from_secs(300);

impl SharedStore {
    /// Registers the authority with these public keys for its issuer. Returns the keys of an authority that is
    /// already registered, if the two have no key in common.
    pub(in crate::state) async fn claim_authority(
        &self,
        issuer: &str,
        key_ids: &[String],
    ) -> Result<Option<String>, StoreError> {
        let key = self.keys.authority(issuer);
        let mut call = self.scripts.claim.call(1);
        call.arg(&key).arg(LEASE.as_millis() as u64).arg(key_ids);
        let other: String = self.lane(key.as_bytes())?.ask(&call, super::RESPONSE_TIMEOUT).await?;
        Ok((!other.is_empty()).then_some(other))
    }
}
