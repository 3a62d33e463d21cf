//! The life of a replica's part in the fleet: connect, catch up with the log, follow it, confirm once a second that
//! nothing was missed; and begin again, after a pause that differs from replica to replica, when anything fails.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Value, cmd};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::connect::{Connection, Connector, Lanes};
use super::endpoint::Host;
use super::entry::{Entry, appended_at, id};
use super::fault::Fault;
use super::keys::{VERSION, slot};
use super::log::{Beat, PAGE, Position, entries};
use super::{Fleet, PATIENCE, setup};
use crate::state::mirror::Lost;
use crate::time::Timestamp;

/// The first pause after a failure, and the longest: together with [`super::connect`]'s patience less than the five
/// seconds within which the gate is back once the server is.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(1_500);
/// How long a read of the log waits for news before it is asked again.
const WAIT: Duration = Duration::from_secs(1);
/// Entries published again at once.
const AGAIN: usize = 500;
/// How long one replica has the sole right to publish lost entries again, before another may.
const MENDING: Duration = Duration::from_secs(5);
/// How much of the log's retention may differ between two servers' clocks.
const CLOCKS: Duration = Duration::from_secs(60);

/// Why following the log ended although the connection is good.
enum Turn {
    /// The log is not the one that was read, or lost its end: catch up again.
    Broken(String),
}

impl Fleet {
    /// Runs until the gate ends.
    pub(super) async fn run(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let Err(fault) = self.serve().await;
            self.disconnect();
            self.settle_first(Err(fault.clone()));
            let what = fault.to_string();
            if self.say(Some(what.clone())) {
                match fault {
                    Fault::Refused(_) => error!(what, "the shared store refuses this gate"),
                    _ => warn!(what, "the shared store cannot be used; trying again"),
                }
            }
            if began.elapsed() > LONGEST_PAUSE * 4 {
                pause = FIRST_PAUSE;
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, from its opening to its end.
    async fn serve(&self) -> Result<std::convert::Infallible, Fault> {
        let lanes = Arc::new(self.connector.lanes().await?);
        let log_slot = slot(self.keys.origin.as_bytes());
        self.prepare(&lanes, log_slot).await?;
        self.connect(Arc::clone(&lanes));
        self.begin().await?;
        loop {
            let lost = self.catch_up().await?;
            let tail = self.open_tail(&lanes, log_slot).await?;
            let turn = tokio::select! {
                turn = self.confirm() => turn?,
                turn = self.follow(&tail) => turn.inspect_err(|_fault| self.distrust_replicas())?,
                fault = self.mend(lost) => return Err(fault),
                fault = self.tend_lanes(log_slot) => return Err(fault),
            };
            let Turn::Broken(why) = turn;
            warn!(why, "the shared log is not what it was; reading it again");
        }
    }

    /// Checks the server and gives it the scripts.
    async fn prepare(&self, lanes: &Lanes, log_slot: u16) -> Result<(), Fault> {
        let found = setup::check(lanes.to(log_slot)?, PATIENCE).await?;
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

    /// Every server has to know the scripts; of those without the log, one that fails is found out when it is used.
    async fn load_scripts(&self, lanes: &Lanes, log_slot: u16) -> Result<(), Fault> {
        let loading = lanes.all().map(|(host, lane)| async move {
            for script in self.scripts.all() {
                lane.ask::<String>(&script.load(), PATIENCE).await.map_err(|fault| (host, fault))?;
            }
            Ok(())
        });
        let loaded: Vec<Result<(), (&Host, Fault)>> = join_all(loading).await;
        let of_log = lanes.host(log_slot)?;
        let failed = loaded.into_iter().filter_map(Result::err).find(|(host, _)| *host == of_log);
        failed.map_or(Ok(()), |(_, fault)| Err(fault))
    }

    /// Makes sure that there is a log, and one of this version.
    async fn begin(&self) -> Result<Beat, Fault> {
        let mut beat = self.beat(PATIENCE).await?;
        if beat.id.is_empty() {
            // It begins now, also for who knows of an earlier one: that has to be published again first.
            self.found(&random_id()).await?;
            beat = self.beat(PATIENCE).await?;
        }
        if beat.version != VERSION {
            return Err(Fault::Refused(format!(
                "what is stored under state.key_prefix is of version {:?}, this release knows {VERSION:?}; update the gates, or use another prefix",
                beat.version
            )));
        }
        Ok(beat)
    }

    /// Reads the log to its end, and finds what is held here and was lost there.
    async fn catch_up(&self) -> Result<Lost, Fault> {
        let asked_at = Timestamp::now();
        let beat = self.begin().await?;
        self.measure(&beat, Duration::ZERO);
        let known = self.position();
        let is_known = known.id == beat.id && beat.created_at <= known.created_at;
        let fork = if is_known { self.fork().await? } else { 0 };
        let lost = self.only_here(fork).await?;
        if !known.id.is_empty() && !is_known {
            warn!(
                held = lost.len(),
                "the shared store holds another log, or not all of it; what only this gate holds is published again"
            );
        }
        if !known.id.is_empty() && known.id != beat.id {
            self.settle();
        }
        *super::lock(&self.lost) = lost;
        let created_at = if known.id.is_empty() { beat.created_at } else { known.created_at };
        self.set_position(Position { id: beat.id.clone(), last: fork, created_at });
        self.announce(Vec::new(), Some(beat.created_at.min(created_at))).await?;
        self.read_to_the_end(&beat).await?;
        let lost = super::lock(&self.lost).clone();
        self.set_mending(!lost.is_empty());
        self.confirmed_at(&beat, asked_at);
        self.settle_first(Ok(()));
        if self.say(None) {
            info!(held = self.position().last > 0, lost = lost.len(), "the shared store is in use");
        }
        Ok(lost)
    }

    async fn read_to_the_end(&self, beat: &Beat) -> Result<(), Fault> {
        let lane = self.log_lane()?;
        loop {
            let last = self.position().last;
            let page = self.read(&lane, last).await?;
            let complete = page.len() < PAGE;
            if let (0, Some(first)) = (last, page.first())
                && first.previous != 0
                && first.sequence > beat.whole
                && !self.is_trimmed(first.previous, beat.clock)
                && !self.holds(first.previous).await?
            {
                self.missed(first).await?;
            }
            let clock = beat.clock;
            let follows = |entry: &Entry, last| {
                entry.previous == last || last == 0 || self.is_trimmed(entry.previous, clock)
            };
            self.take_in(page, follows).await?;
            if complete {
                return Ok(());
            }
        }
    }

    /// Entries are missing that were too young to be removed: what they said is not known, so nothing from before is.
    async fn missed(&self, first: &Entry) -> Result<(), Fault> {
        let since = appended_at(first.sequence);
        error!(%since, "events are missing from the shared log; tokens from before are treated as after the loss of the store");
        let known = self.position();
        let created_at = known.created_at.max(since);
        // Replicas that know more see it, publish what they hold, and move it back.
        self.shift(&known.id, created_at, "raise").await?;
        self.set_position(Position { created_at, ..known });
        self.announce(Vec::new(), Some(created_at)).await
    }

    /// Whether an entry with this place is so old that it was removed in order.
    fn is_trimmed(&self, place: u64, clock: Timestamp) -> bool {
        clock.since(appended_at(place)).saturating_add(CLOCKS) >= self.kept()
    }

    /// Where news are read: a read replica, if one is configured and answers, else the primary.
    async fn open_tail(&self, lanes: &Lanes, log_slot: u16) -> Result<Connection, Fault> {
        if let Some(replicas) = &self.events_connector
            && self.trusts_replicas()
        {
            match self.open_replica(replicas).await {
                Ok(connection) => return Ok(connection),
                Err(fault) => {
                    warn!(%fault, "state.events_url cannot be used; events are read from the primary instead");
                    self.distrust_replicas();
                }
            }
        }
        self.connector.alone(lanes, log_slot).await
    }

    async fn open_replica(&self, replicas: &Connector) -> Result<Connection, Fault> {
        let connection = replicas.any().await?;
        if self.connector.is_cluster() {
            // Else a replica in a cluster only says where its primary is.
            connection.ask::<String>(&cmd("READONLY"), PATIENCE).await?;
        }
        Ok(connection)
    }

    /// Reads the log as it grows.
    async fn follow(&self, tail: &Connection) -> Result<Turn, Fault> {
        loop {
            let last = self.position().last;
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(PAGE).arg("BLOCK").arg(WAIT.as_millis() as u64);
            read.arg("STREAMS").arg(&self.keys.events).arg(id(last));
            let answer: Option<Vec<(String, Vec<Value>)>> = tail.ask(&read, WAIT + PATIENCE).await?;
            let Some((_, values)) = answer.and_then(|streams| streams.into_iter().next()) else { continue };
            let page = entries(&values)?;
            match self.take_in(page, |entry, last| entry.previous == last).await {
                Ok(()) => self.caught_up(),
                Err(Fault::Moved(why)) => return Ok(Turn::Broken(why)),
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Asks every now and then whether the log is the one that is followed, and how far it has grown.
    async fn confirm(&self) -> Result<Turn, Fault> {
        let every = self.heartbeat();
        let mut silent_since = Instant::now();
        loop {
            tokio::select! {
                () = sleep(jittered(every)) => {}
                () = self.doubt.notified() => {}
            }
            // Before the question: what is appended while it is on its way is no loss.
            let (known, began, asked_at) = (self.position(), Instant::now(), Timestamp::now());
            let beat = match self.beat_as_primary(every).await {
                Ok(beat) => beat,
                // One slow answer is not an outage: a thousand replicas that connect anew would make it one.
                Err(Fault::Unreachable(_)) if silent_since.elapsed() < every * 2 => continue,
                Err(fault) => return Err(fault),
            };
            silent_since = Instant::now();
            if beat.id != known.id || beat.created_at > known.created_at {
                return Ok(Turn::Broken("it is another one".to_owned()));
            }
            if beat.last < known.last {
                return Ok(Turn::Broken("it lost its end".to_owned()));
            }
            self.measure(&beat, began.elapsed());
            self.confirmed_at(&beat, asked_at);
            if beat.created_at < known.created_at {
                // A replica that knows more has published it.
                self.set_created_at(beat.created_at);
                self.announce(Vec::new(), Some(beat.created_at)).await?;
            }
            if self.is_left_behind(&beat) {
                self.distrust_replicas();
                return Err(Fault::Unreachable("the events are read too late".to_owned()));
            }
        }
    }

    /// A server that was made a replica goes on answering reads, with what is older by the minute.
    async fn beat_as_primary(&self, patience: Duration) -> Result<Beat, Fault> {
        if !self.connector.is_cluster() {
            let role: Vec<Value> = self.log_lane()?.ask(&cmd("ROLE"), patience).await?;
            if !setup::is_primary(&role) {
                return Err(Fault::Moved("the server is not the primary any more".to_owned()));
            }
        }
        self.beat(patience).await
    }

    /// Publishes again what the log lost, one replica at a time; then waits for ever.
    async fn mend(&self, lost: Lost) -> Fault {
        loop {
            match self.try_mend(&lost).await {
                Ok(()) => return std::future::pending().await,
                // Following the log goes on, and only this waits.
                Err(Fault::Full) => sleep(LONGEST_PAUSE).await,
                Err(fault) => return fault,
            }
        }
    }

    async fn try_mend(&self, lost: &Lost) -> Result<(), Fault> {
        let mut published = 0;
        let me = random_id();
        // What another replica published meanwhile was read, and is not lost any more.
        while !super::lock(&self.lost).is_empty() {
            sleep(jittered(FIRST_PAUSE)).await;
            let mut right = cmd("SET");
            right.arg(&self.keys.mender).arg(&me).arg("NX").arg("PX").arg(MENDING.as_millis() as u64);
            let mine: Option<String> = self.log_lane()?.ask(&right, PATIENCE).await?;
            if mine.is_none() {
                continue;
            }
            // All that was published until the right was given has to be read first.
            let beat = self.beat(PATIENCE).await?;
            while self.position().last < beat.last {
                sleep(FIRST_PAUSE / 10).await;
            }
            let mut left: Vec<u64> = super::lock(&self.lost).iter().copied().collect();
            left.sort_unstable();
            let began = Instant::now();
            for places in left.chunks(AGAIN) {
                if began.elapsed() > MENDING / 2 {
                    break;
                }
                let entries = self.entries_at(places.to_vec()).await?;
                published += entries.len();
                self.put(entries).await?;
                // Those that are not held any more are over.
                let mut lost = super::lock(&self.lost);
                lost.retain(|place| places.binary_search(place).is_err());
            }
            let mut release = cmd("DEL");
            self.log_lane()?.ask::<i64>(release.arg(&self.keys.mender), PATIENCE).await?;
        }
        let known = self.position();
        self.shift(&known.id, known.created_at, "lower").await?;
        self.set_mending(false);
        if !lost.is_empty() {
            info!(lost = lost.len(), published, "events that the shared store had lost are in it again");
        }
        Ok(())
    }

    /// Looks for the nodes of a cluster again when one of them did not do what was asked.
    async fn tend_lanes(&self, log_slot: u16) -> Fault {
        loop {
            self.trouble.notified().await;
            if !self.connector.is_cluster() {
                // The heartbeat finds out what it is.
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

    async fn renew_lanes(&self, log_slot: u16) -> Result<(), Fault> {
        let lanes = self.connector.lanes().await?;
        let moved = self.lanes().is_none_or(|old| old.host(log_slot).ok() != lanes.host(log_slot).ok());
        if moved {
            return Err(Fault::Moved("another node of the cluster has the log".to_owned()));
        }
        self.load_scripts(&lanes, log_slot).await?;
        self.connect(Arc::new(lanes));
        Ok(())
    }
}

/// Between a half and the whole of it, so that replicas that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64((random() % 1_000) as f64 / 2_000.0)
}

fn random_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// Different each time and in each process; nobody must be unable to guess it.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
