//! Last uses, shared by all replicas: written in batches, and read only where the local clock cannot decide.

use std::time::Duration;

use tokio::task::yield_now;

use super::fault::RedisFault;
use super::{RESPONSE_TIMEOUT, SharedStore};
use crate::identity::TokenKey;
use crate::state::StoreError;
use crate::state::record::SessionRow;
use crate::time::Timestamp;

/// How many last uses one call writes.
const BATCH: usize = 500;
/// How many calls run concurrently.
pub(super) const WINDOW: usize = 8;
/// How long a request waits for the read of a last use.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// How much longer than the longest idle timeout a last use is kept: for late writes, and because clock offsets
/// are measured, not exact.
const MARGIN: Duration = Duration::from_secs(60);

/// What all replicas together know of a token's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedUse {
    /// Its last use anywhere.
    LastUsed(Timestamp),
    /// It was idle on all replicas and is permanently rejected.
    Over,
    /// The store cannot say at the moment.
    Unknown,
}

impl SharedStore {
    /// Saves last uses; returns the tokens that another replica found idle in the meantime.
    pub(in crate::state) async fn save_sessions(
        &self,
        rows: Vec<SessionRow>,
    ) -> Result<Vec<TokenKey>, StoreError> {
        let Some(kept) = self.longest_idle() else { return Ok(Vec::new()) };
        let mut uses: Vec<(TokenKey, Timestamp)> =
            rows.iter().map(|row| (row.token, row.last_used_at)).collect();
        drop(rows);
        let mut over = Vec::new();
        for window in self.batches(&mut uses).chunks(WINDOW) {
            let saving = window.iter().map(|batch| self.save_batch(batch, kept));
            for found in futures_util::future::join_all(saving).await {
                over.extend(found?);
            }
            // Encoding hundreds of thousands of entries must not starve other tasks on the thread.
            yield_now().await;
        }
        Ok(over)
    }

    /// Splits last uses into batches, one call each. In a cluster a batch has only one hash tag, so that
    /// its keys share a slot.
    pub(super) fn batches<'a>(
        &self,
        uses: &'a mut [(TokenKey, Timestamp)],
    ) -> Vec<&'a [(TokenKey, Timestamp)]> {
        uses.sort_unstable_by_key(|(token, _)| *token);
        let tag = |token: &TokenKey| token.0.to_bytes()[0];
        let alone = self.is_cluster();
        let groups = uses.chunk_by(move |one, other| !alone || tag(&one.0) == tag(&other.0));
        groups.flat_map(|group| group.chunks(BATCH)).collect()
    }

    async fn save_batch(
        &self,
        batch: &[(TokenKey, Timestamp)],
        kept: Duration,
    ) -> Result<Vec<TokenKey>, RedisFault> {
        let keys: Vec<Vec<u8>> = batch.iter().map(|(token, _)| self.keys.session(*token)).collect();
        let lane = self.lane(keys.first().map_or(&[], Vec::as_slice))?;
        let mut call = self.scripts.save.call(keys.len());
        call.arg(keys).arg(millis(kept.saturating_add(MARGIN)));
        for (_, at) in batch {
            call.arg(at.as_millis());
        }
        let over: Vec<usize> =
            lane.ask(&call, RESPONSE_TIMEOUT).await.inspect_err(|fault| self.report(fault))?;
        self.metrics.state_saved.inc_by(batch.len() as u64);
        Ok(over.into_iter().filter_map(|place| Some(batch.get(place.checked_sub(1)?)?.0)).collect())
    }

    /// Reads the last use of a token that is idle as far as this replica knows: `known` is the last use known
    /// here, `idle` the idle timeout. If the token is idle on all replicas, marks it as permanently idle.
    pub(in crate::state) async fn last_use(
        &self,
        token: TokenKey,
        known: Timestamp,
        idle: Option<Duration>,
    ) -> SharedUse {
        self.metrics.state_reads.inc();
        match self.try_last_use(token, known, idle).await {
            Ok(told) => told,
            Err(fault) => {
                self.report(&fault);
                self.metrics.state_errors.with_label_values(&[StoreError::from(fault).kind()]).inc();
                SharedUse::Unknown
            }
        }
    }

    async fn try_last_use(
        &self,
        token: TokenKey,
        known: Timestamp,
        idle: Option<Duration>,
    ) -> Result<SharedUse, RedisFault> {
        let Some(idle) = idle else { return Ok(SharedUse::LastUsed(known)) };
        match self.look(token, known, idle, false).await? {
            0 => {}
            found => return Ok(told(found)),
        }
        // A missing last use there proves nothing by itself, and the mark would be final.
        self.require_settled().await?;
        self.look(token, known, idle, true).await.map(told)
    }

    /// Fails while last uses are incomplete: after a database was emptied or its clock stepped, until the
    /// replicas have written theirs again.
    pub(super) async fn require_settled(&self) -> Result<(), RedisFault> {
        if self.beat(READ_TIMEOUT).await?.id != self.position().id || self.is_settling() {
            return Err(RedisFault::Unreachable(
                "last uses are incomplete until all gates have written theirs again".to_owned(),
            ));
        }
        Ok(())
    }

    async fn look(
        &self,
        token: TokenKey,
        known: Timestamp,
        idle: Duration,
        mark: bool,
    ) -> Result<i64, RedisFault> {
        let key = self.keys.session(token);
        let lane = self.lane(&key)?;
        let mut call = self.scripts.look.call(1);
        call.arg(key).arg(known.as_millis()).arg(millis(idle));
        // A mark outlives the token: whatever the timeout becomes, an idle token stays idle.
        call.arg(self.kept_millis()).arg(u8::from(mark));
        lane.ask(&call, READ_TIMEOUT).await
    }
}

fn told(found: i64) -> SharedUse {
    if found > 0 { SharedUse::LastUsed(Timestamp::from_millis(found)) } else { SharedUse::Over }
}

fn millis(duration: Duration) -> i64 {
    // Within the integers that Lua's doubles represent exactly.
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(1 << 50)
}

#[cfg(test)]
mod tests;
