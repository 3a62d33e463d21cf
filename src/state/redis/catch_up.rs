//! Reads the log to its end and compares it with the local copy: finds new entries, entries that only this gate
//! still has, and entries that are missing from both.

use std::time::Duration;

use redis::{Value, cmd};
use tracing::{error, warn};

use super::connect::RedisConnection;
use super::entry::{LogEntry, appended_at, id};
use super::fault::RedisFault;
use super::follows::{Follows, Gap, LogOrigin, compact, follows};
use super::keys::VERSION;
use super::log::{Beat, EntryPosition, Notice, PAGE, entries};
use super::phase::Outcome;
use super::supervise::random_id;
use super::transfer::UNFINISHED;
use super::{RESPONSE_TIMEOUT, SharedStore, lock};
use crate::time::{Monotonic, Now, Timestamp};

/// How far apart the clocks of servers, issuers and gates may be.
const CLOCKS: Duration = Duration::from_secs(60);

impl SharedStore {
    /// Makes sure that the log exists and has this version.
    async fn begin(&self) -> Result<Beat, RedisFault> {
        let mut beat = self.beat(RESPONSE_TIMEOUT).await?;
        if beat.id.is_empty() {
            // Created with the present time, even if this gate knows an earlier log: its entries must be
            // published again first.
            self.create_log(&random_id()).await?;
            beat = self.beat(RESPONSE_TIMEOUT).await?;
        }
        self.require_version(&beat)?;
        Ok(beat)
    }

    /// Returns an error for a log of another version.
    pub(super) fn require_version(&self, beat: &Beat) -> Result<(), RedisFault> {
        match beat.version.as_str() {
            VERSION => Ok(()),
            UNFINISHED => Err(RedisFault::Refused(
                "an import into it was interrupted; run `portcullis state import` again".to_owned(),
            )),
            other => Err(RedisFault::Refused(format!(
                "the data under state.key_prefix has version {other:?}, and this release supports {VERSION:?}; update the gates, or use another prefix"
            ))),
        }
    }

    /// Reads the log to its end. Adds to `filled` the gaps whose entries this gate holds.
    pub(super) async fn catch_up(&self, filled: &mut Vec<Gap>) -> Result<Outcome, RedisFault> {
        let asked_at = Monotonic::now();
        let beat = self.begin().await?;
        self.measure(&beat, Duration::ZERO, Now::read());
        let known = self.position();
        let same = known.id == beat.id;
        let is_known = same && (beat.created_at <= known.created_at || !known.complete);
        let fork = if is_known { self.fork().await? } else { 0 };
        let lost = self.only_here(fork).await?;
        if known.complete && !is_known {
            let held = lost.len();
            warn!(
                held,
                "the shared event log was replaced or is incomplete; republishing the events that only this gate has"
            );
        }
        if known.complete && !same {
            self.settle(Duration::ZERO);
        }
        *lock(&self.lost) = lost;
        // A gate that never read a complete log cannot say since when it knows everything.
        let created_at = if known.complete { known.created_at } else { beat.created_at };
        let read = if same { known.read.max(known.last) } else { 0 };
        self.set_position(EntryPosition { id: beat.id.clone(), last: fork, read, ..known });
        let gaps = self.read_to_the_end(&beat).await?;
        let (held, missing) = gaps.into_iter().partition(|gap| gap.upto <= read);
        *filled = compact(held);
        let created_at = self.account(&beat, filled, missing, beat.created_at.min(created_at)).await?;
        {
            let mut position = lock(&self.position);
            (position.created_at, position.complete) = (created_at, true);
            position.said = beat.created_at.max(created_at);
        }
        let removed = self.newly_removed(&beat, asked_at);
        let idle = self.new_terms(&beat);
        self.announce(Notice { created_at: Some(created_at), removed, idle, ..Notice::default() }).await?;
        self.settle_first(Ok(()));
        self.prove(&beat, asked_at, self.heartbeat()).await?;
        let whole = lock(&self.lost).is_empty() && created_at >= beat.created_at && filled.is_empty();
        Ok(if whole { Outcome::CaughtUp } else { Outcome::FoundLoss })
    }

    /// Puts all entries up to the end of the log in force; returns the unexplained gaps.
    async fn read_to_the_end(&self, beat: &Beat) -> Result<Vec<Gap>, RedisFault> {
        let (lane, mut gaps) = (self.log_lane()?, Vec::new());
        loop {
            let last = self.position().last;
            let page = self.read(&lane, last).await?;
            let complete = page.len() < PAGE;
            gaps.extend(gaps_in(last, &page, &beat.ledger));
            self.put_in_force(page).await?;
            if complete {
                break;
            }
        }
        let last = self.position().last;
        if last < beat.last {
            gaps.push(Gap { after: last, upto: beat.last });
            self.advance(beat.last);
        }
        if gaps.is_empty() {
            return Ok(gaps);
        }
        // Entries may have been trimmed or published again since the heartbeat was read.
        let now = self.beat(RESPONSE_TIMEOUT).await?;
        if now.id != beat.id {
            return Err(RedisFault::Moved("the event log was replaced while it was being read".to_owned()));
        }
        gaps.retain(|gap| !now.ledger.explains(*gap));
        Ok(gaps)
    }

    /// Logs the gaps. What the entries said that nobody here knows is lost, so nothing is known of earlier
    /// tokens either; returns the moment since which everything is known.
    async fn account(
        &self,
        beat: &Beat,
        held: &[Gap],
        missing: Vec<Gap>,
        created_at: Timestamp,
    ) -> Result<Timestamp, RedisFault> {
        let count = |is_held: &str, gaps: usize| {
            self.metrics.state_gaps.with_label_values(&[is_held]).inc_by(gaps as u64);
        };
        count("true", held.len());
        count("false", missing.len());
        if !held.is_empty() {
            warn!(
                gaps = held.len(),
                "events are missing from the shared log; this gate has them and republishes those that are still relevant"
            );
        }
        let Some(upto) = missing.iter().map(|gap| gap.upto).max() else { return Ok(created_at) };
        // Token times have a resolution of one second, so the whole second of the event must be over.
        let since = Timestamp::from_secs(appended_at(upto).plus(CLOCKS).min(beat.clock).as_secs() + 1);
        error!(
            gaps = missing.len(),
            %since,
            "events are missing from the shared log; older tokens are rejected as if the store were new, until another gate republishes the events"
        );
        // Replicas that know more notice this, publish what they hold, and move it back.
        self.raise(&beat.id, since).await?;
        Ok(created_at.max(since))
    }

    /// Returns the entries after a place, at most [`PAGE`].
    pub(super) async fn read(&self, lane: &RedisConnection, after: u64) -> Result<Vec<LogEntry>, RedisFault> {
        let mut range = cmd("XRANGE");
        range.arg(&self.keys.events).arg(format!("({}", id(after))).arg("+").arg("COUNT").arg(PAGE);
        let values: Vec<Value> = lane.ask(&range, 4 * RESPONSE_TIMEOUT).await?;
        entries(&values)
    }

    /// Returns the last place that this replica and the log have in common; 0 if they share none.
    async fn fork(&self) -> Result<u64, RedisFault> {
        const STEP: usize = 100;
        let mut before = "+".to_owned();
        loop {
            let mut range = cmd("XREVRANGE");
            range.arg(&self.keys.events).arg(&before).arg("-").arg("COUNT").arg(STEP);
            let values: Vec<Value> = self.log_lane()?.ask(&range, RESPONSE_TIMEOUT).await?;
            let page = entries(&values)?;
            for entry in &page {
                if self.holds(entry.sequence).await? {
                    return Ok(entry.sequence);
                }
            }
            let Some(oldest) = page.last() else { return Ok(0) };
            before = format!("({}", id(oldest.sequence));
        }
    }
}

/// Returns the gaps between the entries of a page that begins after `last`.
fn gaps_in(mut last: u64, page: &[LogEntry], ledger: &LogOrigin) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for entry in page {
        match follows(last, entry.sequence, entry.previous, ledger) {
            Follows::Next | Follows::Explained => {}
            Follows::Missing(gap) => gaps.push(gap),
            // Somebody added it by hand, so anything may be missing before it.
            Follows::Foreign => gaps.push(Gap { after: last, upto: entry.sequence }),
        }
        last = entry.sequence;
    }
    gaps
}

#[cfg(test)]
mod tests;
