//! First uses that all replicas share, for tokens that were used before their `iat` because the clock of the issuer
//! was ahead: an event after such a use ends the token on every replica, even where the token was never seen.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::cmd;

use super::fault::RedisFault;
use super::{RESPONSE_TIMEOUT, SharedStore};
use crate::identity::TokenKey;
use crate::state::StoreError;
use crate::time::Timestamp;

/// How long a request waits for the read of a first use.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// What all replicas together know of the first use of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstUse {
    /// It was used at this moment, before `iat`.
    At(Timestamp),
    /// It was not used before `iat` on another replica.
    Ordinary,
    /// The store cannot say at the moment.
    Unknown,
}

impl SharedStore {
    /// Saves first uses.
    pub(in crate::state) async fn save_first_uses(
        &self,
        mut uses: Vec<(TokenKey, Timestamp)>,
    ) -> Result<(), StoreError> {
        for window in self.batches(&mut uses).chunks(super::clocks::WINDOW) {
            try_join_all(window.iter().map(|batch| self.save_first(batch))).await?;
        }
        Ok(())
    }

    async fn save_first(&self, batch: &[(TokenKey, Timestamp)]) -> Result<(), RedisFault> {
        let keys: Vec<Vec<u8>> = batch.iter().map(|(token, _)| self.keys.first_use(*token)).collect();
        let lane = self.lane(keys.first().map_or(&[], Vec::as_slice))?;
        let mut call = self.scripts.first.call(keys.len());
        // Kept as long as an event that comes now can have an effect.
        call.arg(keys).arg(self.kept_millis());
        for (_, at) in batch {
            call.arg(at.as_millis());
        }
        lane.ask::<i64>(&call, RESPONSE_TIMEOUT).await.inspect_err(|fault| self.report(fault)).map(drop)
    }

    /// Returns the first use of a token on any replica.
    pub(in crate::state) async fn first_use(&self, token: TokenKey) -> FirstUse {
        self.metrics.state_reads.inc();
        match self.try_first_use(token).await {
            Ok(Some(at)) => FirstUse::At(Timestamp::from_millis(at)),
            Ok(None) => FirstUse::Ordinary,
            Err(fault) => {
                self.report(&fault);
                self.metrics.state_errors.with_label_values(&[StoreError::from(fault).kind()]).inc();
                FirstUse::Unknown
            }
        }
    }

    async fn try_first_use(&self, token: TokenKey) -> Result<Option<i64>, RedisFault> {
        let key = self.keys.first_use(token);
        let mut get = cmd("GET");
        let found: Option<i64> = self.lane(&key)?.ask(get.arg(&key), READ_TIMEOUT).await?;
        if found.is_none() {
            // An emptied database has no first uses until the replicas have written theirs again.
            self.require_settled().await?;
        }
        Ok(found)
    }
}
