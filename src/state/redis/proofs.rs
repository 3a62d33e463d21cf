//! Used proofs of possession, shared by all replicas so that each is accepted only once, and the keys of nonces.

use std::time::Duration;

use redis::cmd;

use super::SharedStore;
use super::fault::RedisFault;
use crate::identity::Key;
use crate::state::StoreError;

/// How long a request waits for the server.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(500);

impl SharedStore {
    /// Claims a proof for `keep`; true if no replica has used it before.
    pub(in crate::state) async fn claim_proof(&self, proof: Key, keep: Duration) -> Result<bool, StoreError> {
        self.counted(self.try_claim(proof, keep).await)
    }

    async fn try_claim(&self, proof: Key, keep: Duration) -> Result<bool, RedisFault> {
        let key = self.keys.proof(proof);
        let mut set = cmd("SET");
        let set = set.arg(&key).arg(1).arg("NX").arg("PX").arg(millis(keep));
        let done: Option<String> = self.lane(&key)?.ask(set, CLAIM_TIMEOUT).await?;
        Ok(done.is_some())
    }

    /// Returns the nonce key of a period: `fresh`, unless another replica was first.
    pub(in crate::state) async fn nonce_key(
        &self,
        period: i64,
        fresh: &[u8],
        keep: Duration,
    ) -> Result<Vec<u8>, StoreError> {
        self.counted(self.try_nonce_key(period, fresh, keep).await)
    }

    async fn try_nonce_key(&self, period: i64, fresh: &[u8], keep: Duration) -> Result<Vec<u8>, RedisFault> {
        let key = self.keys.nonces(period);
        let lane = self.lane(key.as_bytes())?;
        let mut set = cmd("SET");
        let set = set.arg(&key).arg(fresh).arg("NX").arg("PX").arg(millis(keep));
        let _made: Option<String> = lane.ask(set, CLAIM_TIMEOUT).await?;
        let kept: Option<Vec<u8>> = lane.ask(cmd("GET").arg(&key), CLAIM_TIMEOUT).await?;
        kept.ok_or_else(|| {
            RedisFault::Unreachable("it lost a key immediately after it was written".to_owned())
        })
    }

    fn counted<T>(&self, outcome: Result<T, RedisFault>) -> Result<T, StoreError> {
        outcome.map_err(|fault| {
            self.report(&fault);
            let error = StoreError::from(fault);
            self.metrics.state_errors.with_label_values(&[error.kind()]).inc();
            error
        })
    }
}

/// At least 1, because Redis rejects 0.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).clamp(1, 1 << 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_one_that_the_server_takes() {
        for (duration, expected) in [(0, 1), (1, 1), (5, 5), (u64::MAX, 1_125_899_906_842_624)] {
            assert_eq!(millis(Duration::from_millis(duration)), expected);
        }
    }
}
