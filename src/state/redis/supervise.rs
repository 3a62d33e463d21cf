//! The supervisor of a replica's connection to the shared store: connects, catches up with the log, follows it,
//! and confirms every second that nothing was missed; on failure it starts again after a random pause.
//!
//! One task moves from one [`RedisPhase`] to the next; the modules next to this one implement the phases.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Value, cmd};
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::connect::{Connector, Lanes, RedisConnection};
use super::endpoint::Host;
use super::entry::{LogEntry, id};
use super::fault::RedisFault;
use super::follows::{Follows, Gap, LogOrigin, follows};
use super::keys::slot;
use super::log::{PAGE, entries};
use super::phase::{Outcome, RedisPhase};
use super::{RESPONSE_TIMEOUT, SharedStore, setup};

/// The first and the longest pause after a failure. Together with the timeouts of [`super::connect`] they are
/// shorter than the five seconds within which the gate recovers once the server is back.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(1_500);
/// A connection that lasted longer was good: after it, the first pause is enough.
const LASTING: Duration = Duration::from_secs(6);
/// How long one read of the log blocks for new entries.
const WAIT: Duration = Duration::from_secs(1);

impl SharedStore {
    /// Runs until the gate ends.
    pub(super) async fn run(self: Arc<Self>) {
        let (mut pause, mut connected_at) = (Duration::ZERO, Instant::now());
        let mut filled = Vec::new();
        loop {
            let phase = self.phase();
            let outcome = match phase {
                RedisPhase::Connecting => {
                    connected_at = Instant::now();
                    self.open().await
                }
                RedisPhase::CatchingUp => self.catch_up(&mut filled).await,
                RedisPhase::Mending => self.follow_and_mend(Some(&filled)).await,
                RedisPhase::Following => self.follow_and_mend(None).await,
                RedisPhase::Pausing => {
                    pause = next_pause(pause, connected_at.elapsed());
                    sleep(jittered(pause)).await;
                    Ok(Outcome::Rested)
                }
            };
            self.enter(phase.after(outcome.unwrap_or_else(|fault| self.failed(fault))));
        }
    }

    fn failed(&self, fault: RedisFault) -> Outcome {
        self.disconnect();
        let what = fault.to_string();
        if self.set_condition(Some(what.clone())) {
            match fault {
                RedisFault::Refused(_) => error!(what, "the shared store rejected this gate"),
                _ => warn!(what, "the shared store is unavailable; retrying"),
            }
        }
        self.settle_first(Err(fault));
        Outcome::Failed
    }

    /// Connects to a suitable server.
    pub(super) async fn open(&self) -> Result<Outcome, RedisFault> {
        let lanes = Arc::new(self.connector.lanes().await?);
        self.prepare(&lanes, self.log_slot()).await?;
        self.connect(lanes);
        Ok(Outcome::Connected)
    }

    /// Follows the log until something is wrong with it; meanwhile republishes what it has lost.
    async fn follow_and_mend(&self, mend: Option<&[Gap]>) -> Result<Outcome, RedisFault> {
        let log_slot = self.log_slot();
        let tail = self.open_tail(log_slot).await?;
        let mending = async {
            match mend {
                Some(filled) => self.mend(filled).await,
                None => std::future::pending().await,
            }
        };
        let mut following = std::pin::pin!(self.follow(&tail));
        let outcome = tokio::select! {
            outcome = self.confirm() => outcome,
            outcome = &mut following => return outcome.inspect_err(|_fault| self.distrust_replicas()),
            outcome = mending => outcome,
            fault = self.tend_lanes(log_slot) => Err(fault),
        };
        // Entries that were read are put in force first: an entry counts as known as soon as it is held.
        let mut applying = self.applying.subscribe();
        tokio::select! {
            _ = &mut following => {}
            _ = applying.wait_for(|applying| !applying) => {}
        }
        outcome
    }

    fn log_slot(&self) -> u16 {
        slot(self.keys.origin.as_bytes())
    }

    /// Checks the server and loads the scripts.
    async fn prepare(&self, lanes: &Lanes, log_slot: u16) -> Result<(), RedisFault> {
        let found = setup::check(lanes.to(log_slot)?, RESPONSE_TIMEOUT).await?;
        for warning in setup::WARNINGS {
            let questionable = found.contains(&warning);
            let gauge = self.metrics.state_setup_warnings.with_label_values(&[warning.setting]);
            if questionable && gauge.get() == 0 {
                warn!(setting = warning.setting, "{}", warning.advice);
            }
            gauge.set(i64::from(questionable));
        }
        self.load_scripts(lanes, log_slot).await
    }

    /// Loads the scripts into every server. A failure of one without the log is noticed when that server is used.
    async fn load_scripts(&self, lanes: &Lanes, log_slot: u16) -> Result<(), RedisFault> {
        let loading = lanes.all().map(|(host, lane)| async move {
            for script in self.scripts.all() {
                lane.ask::<String>(&script.load(), RESPONSE_TIMEOUT).await.map_err(|fault| (host, fault))?;
            }
            Ok(())
        });
        let loaded: Vec<Result<(), (&Host, RedisFault)>> = join_all(loading).await;
        let of_log = lanes.host(log_slot)?;
        let failed = loaded.into_iter().filter_map(Result::err).find(|(host, _)| *host == of_log);
        failed.map_or(Ok(()), |(_, fault)| Err(fault))
    }

    /// Opens the connection for following the log: to a read replica, if one is configured and responds,
    /// otherwise to the primary.
    async fn open_tail(&self, log_slot: u16) -> Result<RedisConnection, RedisFault> {
        if let Some(replicas) = &self.events_connector
            && self.trusts_replicas()
        {
            match self.open_replica(replicas).await {
                Ok(connection) => return Ok(connection),
                Err(fault) => {
                    warn!(%fault, "state.events_url is unavailable; reading events from the primary instead");
                    self.distrust_replicas();
                }
            }
        }
        let lanes = self.lanes().ok_or_else(|| RedisFault::Unreachable("not connected".to_owned()))?;
        self.connector.alone(&lanes, log_slot).await
    }

    async fn open_replica(&self, replicas: &Connector) -> Result<RedisConnection, RedisFault> {
        let connection = replicas.any().await?;
        if self.connector.is_cluster() {
            // Without it, a replica in a cluster only redirects to its primary.
            connection.ask::<String>(&cmd("READONLY"), RESPONSE_TIMEOUT).await?;
        }
        Ok(connection)
    }

    /// Reads the log as it grows.
    async fn follow(&self, tail: &RedisConnection) -> Result<Outcome, RedisFault> {
        loop {
            let last = self.position().last;
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(PAGE).arg("BLOCK").arg(WAIT.as_millis() as u64);
            read.arg("STREAMS").arg(&self.keys.events).arg(id(last));
            let answer: Option<Vec<(String, Vec<Value>)>> = tail.ask(&read, WAIT + RESPONSE_TIMEOUT).await?;
            let Some((_, values)) = answer.and_then(|streams| streams.into_iter().next()) else { continue };
            let page = entries(&values)?;
            if let Some(entry) = first_break(last, &page) {
                let (entry, last) = (id(entry.sequence), id(last));
                warn!(entry, last, "the shared event log has a gap; rereading it");
                return Ok(Outcome::Broken);
            }
            self.put_in_force(page).await?;
            self.caught_up();
        }
    }

    /// Reconnects to the nodes of a cluster when a call to one has failed.
    async fn tend_lanes(&self, log_slot: u16) -> RedisFault {
        loop {
            self.trouble.notified().await;
            if !self.connector.is_cluster() {
                // The heartbeat finds out what is wrong.
                self.doubt.notify_one();
                sleep(FIRST_PAUSE).await;
                continue;
            }
            sleep(jittered(LONGEST_PAUSE)).await;
            if let Err(fault) = self.renew_lanes(log_slot).await {
                return fault;
            }
        }
    }

    async fn renew_lanes(&self, log_slot: u16) -> Result<(), RedisFault> {
        let lanes = self.connector.lanes().await?;
        let moved = self.lanes().is_none_or(|old| old.host(log_slot).ok() != lanes.host(log_slot).ok());
        if moved {
            return Err(RedisFault::Moved(
                "the event log has moved to another node of the cluster".to_owned(),
            ));
        }
        self.load_scripts(&lanes, log_slot).await?;
        self.connect(Arc::new(lanes));
        Ok(())
    }
}

/// Returns the pause after a failure: twice the one before, or the first again if the connection had lasted.
fn next_pause(before: Duration, lasted: Duration) -> Duration {
    if lasted > LASTING {
        return FIRST_PAUSE;
    }
    (before * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

/// Between half and all of the pause, so that replicas that failed together do not reconnect together.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64((random() % 1_000) as f64 / 2_000.0)
}

pub(super) fn random_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// Different on each call and in each process; need not be unpredictable.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// The first entry that does not follow the one before it.
fn first_break(mut last: u64, page: &[LogEntry]) -> Option<&LogEntry> {
    page.iter().find(|entry| {
        let found = follows(last, entry.sequence, entry.previous, &LogOrigin::default());
        last = entry.sequence;
        found != Follows::Next
    })
}

#[cfg(test)]
mod tests;
