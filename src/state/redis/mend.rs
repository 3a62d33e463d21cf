//! Republishes events that the log has lost and this gate still has, one gate at a time.

use std::time::{Duration, Instant};

use redis::cmd;
use tokio::time::sleep;
use tracing::{info, warn};

use super::fault::RedisFault;
use super::follows::Gap;
use super::phase::Outcome;
use super::supervise::{FIRST_PAUSE, LONGEST_PAUSE, jittered, random_id};
use super::{RESPONSE_TIMEOUT, SharedStore, lock};

/// How many entries are republished at once.
const AGAIN: usize = 500;
/// The lease of the lock for republishing: how long only one replica may publish lost entries.
const MENDING: Duration = Duration::from_secs(5);
/// How long it publishes under one lease: the last batch must be written before the lease ends.
const PUBLISHING: Duration = Duration::from_millis(2_500);
/// The pause between two looks at whether an entry has been read.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl SharedStore {
    /// Republishes what the log has lost; then nothing is missing in these gaps.
    pub(super) async fn mend(&self, filled: &[Gap]) -> Result<Outcome, RedisFault> {
        loop {
            match self.try_mend(filled).await {
                Ok(outcome) => return Ok(outcome),
                // Following the log continues; only this waits.
                Err(RedisFault::Full | RedisFault::Unwritable(_)) => sleep(LONGEST_PAUSE).await,
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn try_mend(&self, filled: &[Gap]) -> Result<Outcome, RedisFault> {
        let (lost, mut published) = (lock(&self.lost).len(), 0);
        let me = random_id();
        // Entries that another replica published meanwhile have been read, and are no longer lost.
        while !lock(&self.lost).is_empty() {
            sleep(jittered(FIRST_PAUSE)).await;
            let mut right = cmd("SET");
            right.arg(&self.keys.mender).arg(&me).arg("NX").arg("PX").arg(MENDING.as_millis() as u64);
            let mine: Option<String> = self.log_lane()?.ask(&right, RESPONSE_TIMEOUT).await?;
            if mine.is_none() {
                continue;
            }
            published += self.publish_again(PUBLISHING).await?;
            // The lock may have passed to another replica meanwhile; the script then leaves it alone.
            let mut release = self.scripts.release.call(1);
            release.arg(&self.keys.mender).arg(&me);
            self.log_lane()?.ask::<i64>(&release, RESPONSE_TIMEOUT).await?;
        }
        if !self.lower(&self.position(), filled).await? {
            warn!("another gate found that events are missing from the shared log; rereading it");
            return Ok(Outcome::Broken);
        }
        if lost > 0 {
            info!(lost, published, "restored events that the shared store had lost");
        }
        Ok(Outcome::Mended)
    }

    /// Publishes for at most so long; returns how many entries.
    async fn publish_again(&self, longest: Duration) -> Result<usize, RedisFault> {
        let (began, mut published) = (Instant::now(), 0);
        // Everything that was published before the lock was taken must be read first.
        let beat = self.beat(RESPONSE_TIMEOUT).await?;
        while self.position().last < beat.last {
            sleep(LOOK_AGAIN).await;
        }
        let mut left: Vec<u64> = lock(&self.lost).iter().copied().collect();
        left.sort_unstable();
        for places in left.chunks(AGAIN) {
            if began.elapsed() > longest {
                break;
            }
            let entries = self.entries_at(places.to_vec()).await?;
            published += entries.len();
            if !entries.is_empty() {
                self.put(entries).await?;
            }
            // Entries that are no longer held have expired.
            lock(&self.lost).retain(|place| places.binary_search(place).is_err());
        }
        Ok(published)
    }
}

#[cfg(test)]
mod tests;
