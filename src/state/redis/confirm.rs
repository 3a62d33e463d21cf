//! The heartbeat: confirms that the log is the expected one, how far it reaches, and that its server accepts writes.
//!
//! A primary that is fenced off still answers queries, and its log looks complete. Only an accepted write
//! proves that it is still the server where revocations arrive. The last such write of any gate is the proof
//! for all: gates read its time, and write themselves only when it is older than half a heartbeat.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::fault::RedisFault;
use super::log::{Beat, Notice};
use super::phase::Outcome;
use super::supervise::jittered;
use super::{RESPONSE_TIMEOUT, SharedStore, lock, setup};
use crate::time::{Monotonic, Now, Timestamp};

/// How much a server's clock may drift between two heartbeats, and how much the clock of its successor may differ.
const CLOCKS: Duration = Duration::from_secs(30);
/// How long no token is marked permanently idle after the server's clock stepped: time for an operator to correct it.
const STEPPED: Duration = Duration::from_secs(600);

impl SharedStore {
    /// Confirms at each heartbeat that the log is the one being followed, and reads how far it has grown.
    pub(super) async fn confirm(&self) -> Result<Outcome, RedisFault> {
        let mut silent_since = Instant::now();
        // A beginning that was moved back, and the log's last entry at that time.
        let mut lowered: Option<(Timestamp, u64)> = None;
        loop {
            let every = self.heartbeat();
            tokio::select! {
                () = sleep(jittered(every)) => {}
                () = self.doubt.notified() => {}
            }
            // Read before the request: an entry that is appended while it is under way is not a loss.
            let (known, asked_at) = (self.position(), Monotonic::now());
            let beat = match self.beat_as_primary(every).await {
                Ok(beat) => beat,
                // One slow response is not an outage: a thousand replicas reconnecting would turn it into one.
                Err(RedisFault::Unreachable(_)) if silent_since.elapsed() < every * 2 => continue,
                Err(fault) => return Err(fault),
            };
            silent_since = Instant::now();
            if let Some(why) = beat.mismatch(&known) {
                warn!(why, "the shared event log has changed unexpectedly; rereading it");
                return Ok(Outcome::Broken);
            }
            let now = Now::read();
            self.measure(&beat, now.monotonic.since(asked_at), now);
            let (removed, idle) = (self.newly_removed(&beat, asked_at), self.new_terms(&beat));
            self.announce(Notice { removed, idle, ..Notice::default() }).await?;
            match self.prove(&beat, asked_at, every).await {
                // Then nothing was confirmed.
                Ok(()) | Err(RedisFault::Unreachable(_)) => {}
                Err(fault) => return Err(fault),
            }
            lock(&self.position).said = beat.created_at;
            let is_news = lowered.is_none_or(|(created_at, _)| beat.created_at < created_at);
            if beat.created_at < known.created_at && is_news {
                lowered = Some((beat.created_at, beat.last));
            }
            // Republished events must take effect before the tokens that they may have ended count again.
            if let Some((created_at, _)) = lowered.take_if(|(_, last)| self.position().last >= *last) {
                lock(&self.position).created_at = created_at;
                self.announce(Notice { created_at: Some(created_at), ..Notice::default() }).await?;
            }
            if self.is_left_behind(&beat, Monotonic::now()) {
                self.distrust_replicas();
                return Err(RedisFault::Unreachable("reading events lags behind".to_owned()));
            }
        }
    }

    /// Reads the heartbeat after checking the server's role: a demoted primary still answers reads, with
    /// data that grows stale.
    async fn beat_as_primary(&self, patience: Duration) -> Result<Beat, RedisFault> {
        if !self.is_cluster() {
            let role: Vec<Value> = self.log_lane()?.ask(&cmd("ROLE"), patience).await?;
            if !setup::is_primary(&role) {
                return Err(RedisFault::Moved("the server is no longer the primary".to_owned()));
            }
        }
        self.beat(patience).await
    }

    /// Confirms the `beat`, requested at `asked_at`, if its server accepts writes. A server that does not is
    /// still followed, because it may accept them again.
    pub(super) async fn prove(
        &self,
        beat: &Beat,
        asked_at: Monotonic,
        every: Duration,
    ) -> Result<(), RedisFault> {
        match self.last_write(beat, asked_at, every).await {
            Ok(at) => {
                self.confirmed_at(beat, at);
                if self.set_condition(None) {
                    info!(held = self.position().last > 0, "connected to the shared store");
                }
                Ok(())
            }
            Err(fault @ RedisFault::Unwritable(_)) => {
                let what = fault.to_string();
                if self.set_condition(Some(what.clone())) {
                    warn!(what, "the shared store rejects writes, so the state cannot be confirmed as fresh");
                }
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// Returns the time of the server's last accepted write, at most `asked_at`. Writes if that was too long ago.
    async fn last_write(
        &self,
        beat: &Beat,
        asked_at: Monotonic,
        every: Duration,
    ) -> Result<Monotonic, RedisFault> {
        let age = beat.stamp.and_then(|stamp| age(stamp, beat.clock, every / 2));
        if let Some(age) = age
            && beat.kept >= self.kept_millis()
        {
            return Ok(asked_at.minus(age));
        }
        let lane = self.log_lane()?;
        let mut stamp = cmd("SET");
        stamp.arg(&self.keys.stamp).arg(beat.clock.as_millis());
        match lane.ask::<String>(&stamp, RESPONSE_TIMEOUT).await {
            // A server at maxmemory rejects only commands that need memory; this one does not, so it still
            // proves that writes are accepted.
            Err(RedisFault::Full) => {
                let mut touch = cmd("GETEX");
                lane.ask::<Option<String>>(touch.arg(&self.keys.stamp).arg("PERSIST"), RESPONSE_TIMEOUT)
                    .await?;
            }
            other => drop(other?),
        }
        let mut tick = self.scripts.tick.call(2);
        tick.arg(&self.keys.origin).arg(&self.keys.events).arg(&beat.id).arg(self.kept_millis());
        match lane.ask::<i64>(&tick, RESPONSE_TIMEOUT).await {
            Ok(_) | Err(RedisFault::Full) => Ok(asked_at),
            Err(fault) => Err(fault),
        }
    }

    /// Measures the offset of the server's clock by a heartbeat that ended now; a slow response is too imprecise and is ignored. When that
    /// clock stepped, last uses in the store may have expired, and tokens may only seem idle: all replicas
    /// write their last uses again, and no token is marked permanently idle for a while.
    pub(super) fn measure(&self, beat: &Beat, round_trip: Duration, now: Now) {
        if round_trip >= RESPONSE_TIMEOUT / 4 {
            return;
        }
        let theirs = beat.clock.plus(round_trip / 2).as_millis();
        self.offset.store(theirs - now.wall.as_millis(), Ordering::Relaxed);
        let ahead = theirs - now.monotonic.as_millis();
        let before = lock(&self.ahead).replace(ahead);
        if before.is_some_and(|before| is_step(before, ahead)) {
            let by_ms = before.map_or(0, |before| ahead - before);
            warn!(by_ms, "the clock of the shared store's server has jumped; idle times depend on it");
            self.settle(STEPPED);
        }
    }

    /// Records that all entries that were in the log at that moment are known here, or will be once its last entry is.
    fn confirmed_at(&self, beat: &Beat, at: Monotonic) {
        let position = lock(&self.position);
        if position.last >= beat.last {
            self.freshness.confirm(at);
            *lock(&self.pending) = None;
        } else {
            // The older one can be confirmed sooner.
            lock(&self.pending).get_or_insert((at, beat.last));
        }
    }

    /// Confirms the pending heartbeat if its entries are in force now.
    pub(super) fn caught_up(&self) {
        let position = lock(&self.position);
        let mut pending = lock(&self.pending);
        if let Some((at, _)) = pending.take_if(|(_, last)| position.last >= *last) {
            self.freshness.confirm(at);
        }
    }

    /// Whether entries that the primary has fail to arrive here.
    fn is_left_behind(&self, beat: &Beat, now: Monotonic) -> bool {
        let waiting = lock(&self.pending).map(|(at, _)| now.since(at));
        waiting.is_some_and(|waiting| waiting > lock(&self.terms).max_staleness / 2)
            && self.position().last < beat.last
    }
}

/// Whether the clock was set in between: it was `before` ahead of a steady clock, and is `ahead` of it now.
const fn is_step(before: i64, ahead: i64) -> bool {
    before.abs_diff(ahead) > CLOCKS.as_millis() as u64
}

/// The age of a stamp, if that is at most `limit`. A stamp in the future comes from a clock that was set back since.
fn age(stamp: Timestamp, clock: Timestamp, limit: Duration) -> Option<Duration> {
    (stamp <= clock).then(|| clock.since(stamp)).filter(|age| *age <= limit)
}

#[cfg(test)]
mod tests;
