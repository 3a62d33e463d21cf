//! Deleting events that can matter no more, and what is remembered in their place.
//!
//! A row goes only when two clocks agree that its time is over: the running time since it was received, which is never
//! longer than the real one, and the wall clock, by which tokens expire. So a clock that is wrong in either direction
//! deletes nothing. And because the settings may grow after a row is gone, what it may have ended is remembered: tokens of
//! its issuer that were issued before it arrived are refused. When that was is remembered as running time, because the wall
//! clock may have been wrong then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::record::{EventKind, Forgotten, Kept, StoredEvent, TrimCursor, Trimmed};
use super::rows::{self, EVENT};
use super::uptime::Uptime;
use crate::identity::Key;
use crate::time::Timestamp;

/// The moment of a deletion, and how long events are kept by the settings in force.
#[derive(Debug, Clone)]
pub(super) struct TrimTerms {
    pub(super) wall: Timestamp,
    /// As running time of the store.
    pub(super) uptime: i64,
    pub(super) clock: Uptime,
    pub(super) kept: Arc<[Kept]>,
}

impl TrimTerms {
    fn of(&self, issuer: &str) -> Option<&Kept> {
        self.kept.iter().find(|kept| &*kept.issuer == issuer)
    }

    /// The larger of what was asked when the event came and what is asked now.
    fn retention(&self, stored: &StoredEvent) -> Duration {
        let asked = stored.retention();
        self.of(&stored.event.issuer).map_or(asked, |kept| kept.retention.max(asked))
    }

    fn is_over(&self, stored: &StoredEvent, received_uptime: i64) -> bool {
        let retention = self.retention(stored);
        let ran = u64::try_from(self.uptime.saturating_sub(received_uptime)).unwrap_or(0);
        Duration::from_millis(ran) > retention && self.wall.since(stored.received_at) > retention
    }

    /// Until when tokens were issued that a deleted event may have ended, by running time: until it was received, and by the
    /// leeway longer, because the clock of their issuer may have been ahead.
    fn until(&self, stored: &StoredEvent, received_uptime: i64) -> i64 {
        let leeway = self.of(&stored.event.issuer).map(|kept| kept.leeway);
        // Of an issuer that is not configured any more, the largest that is.
        let leeway = leeway.or_else(|| self.kept.iter().map(|kept| kept.leeway).max()).unwrap_or_default();
        received_uptime.saturating_add(millis(leeway))
    }
}

/// Deletes what is over of the next `limit` events that may be, in the order in which they were to expire.
pub(super) fn trim(
    db: &Connection,
    after: Option<TrimCursor>,
    limit: usize,
    terms: &TrimTerms,
) -> rusqlite::Result<Trimmed> {
    let after = after.unwrap_or(TrimCursor { expires_at: Timestamp::from_millis(i64::MIN), sequence: 0 });
    // No row goes before this, and the index finds them.
    let candidates: Vec<(StoredEvent, i64)> = db
        .prepare_cached(&format!(
            "SELECT {EVENT}, received_uptime FROM events
             WHERE expires_at < ?1 AND (expires_at, sequence) > (?2, ?3) ORDER BY expires_at, sequence LIMIT ?4"
        ))?
        .query_map(
            params![
                terms.wall.as_millis(),
                after.expires_at.as_millis(),
                rows::signed(after.sequence),
                i64::try_from(limit).unwrap_or(i64::MAX)
            ],
            |row| Ok((rows::stored(row)?, row.get("received_uptime")?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let last = candidates.last().filter(|_| candidates.len() == limit);
    let next =
        last.map(|(last, _)| TrimCursor { expires_at: last.event.expires_at, sequence: last.sequence });
    let over: Vec<(StoredEvent, i64)> =
        candidates.into_iter().filter(|(stored, received)| terms.is_over(stored, *received)).collect();
    for (stored, _) in &over {
        db.prepare_cached("DELETE FROM events WHERE sequence = ?1")?
            .execute([rows::signed(stored.sequence)])?;
    }
    rows::count_uptime(db, terms.uptime)?;
    let counted =
        || over.iter().filter(|(stored, _)| !stored.undone && stored.event.kind != EventKind::Undone);
    for (stored, received) in counted() {
        remember(db, &stored.event.issuer, terms.retention(stored), terms.until(stored, *received))?;
    }
    let named: HashMap<(bool, Key), EventKind> =
        counted().map(|(stored, _)| (class(stored), stored.event.kind)).collect();
    let names = named
        .into_iter()
        .map(|((_, key), kind)| Ok((kind, key, rows::counting(db, kind, key)?)))
        .collect::<rusqlite::Result<_>>()?;
    let forgotten = if over.is_empty() { Vec::new() } else { forgotten(db, terms.clock)? };
    Ok(Trimmed { deleted: over.len(), names, forgotten, next })
}

/// What an event names: keys of subjects and of others do not meet, but nothing rests on that.
fn class(stored: &StoredEvent) -> (bool, Key) {
    (stored.event.kind.shares_keys_with(EventKind::RoleChanged), stored.event.key)
}

/// Retentions are told apart by the minute, which is within their margin: the moments from which they were computed differ by
/// milliseconds.
const GRAIN: i64 = 60_000;

fn remember(db: &Connection, issuer: &str, retention: Duration, until: i64) -> rusqlite::Result<()> {
    let retention = millis(retention) / GRAIN * GRAIN;
    db.prepare_cached(
        "INSERT INTO forgotten (issuer, retention, until_uptime) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE
         SET until_uptime = max(until_uptime, excluded.until_uptime)",
    )?
    .execute(params![issuer, retention, until])?;
    Ok(())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What is known of all deleted events. Of an issuer there is one for each retention that its settings ever asked for.
pub(super) fn forgotten(db: &Connection, clock: Uptime) -> rusqlite::Result<Vec<Forgotten>> {
    db.prepare_cached("SELECT issuer, retention, until_uptime FROM forgotten")?
        .query_map([], |row| {
            let retention = row.get::<_, i64>(1)?;
            Ok(Forgotten {
                issuer: row.get(0)?,
                until: clock.moment(row.get(2)?),
                retention: Duration::from_millis(rows::unsigned(retention)),
            })
        })?
        .collect()
}
