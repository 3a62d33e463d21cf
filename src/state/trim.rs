//! Deletes events that can no longer have an effect, and records what is remembered in their place.
//!
//! A row is deleted only when two clocks agree that its time is over: the running time since it was received,
//! which never exceeds the real time, and the wall clock, by which tokens expire. So a clock that is wrong in
//! either direction deletes nothing too early. Because the settings may grow after a row is deleted, what it
//! may have ended is remembered: tokens of its issuer that were issued before it arrived are rejected. That
//! moment is kept as running time, because the wall clock may have been wrong then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::record::{EventKind, Forgotten, Kept, StoredEvent, TrimCursor, Trimmed};
use super::rows::{self, EVENT};
use super::uptime::Uptime;
use crate::identity::Key;
use crate::time::Timestamp;

/// The moment of a deletion, and the retentions in force.
#[derive(Debug, Clone)]
pub(super) struct TrimTerms {
    pub(super) wall: Timestamp,
    /// On the running time of the store.
    pub(super) uptime: i64,
    pub(super) clock: Uptime,
    pub(super) kept: Arc<[Kept]>,
}

impl TrimTerms {
    fn of(&self, issuer: &str) -> Option<&Kept> {
        self.kept.iter().find(|kept| &*kept.issuer == issuer)
    }

    /// The larger of the retention when the event arrived and the retention in force.
    fn retention(&self, stored: &StoredEvent) -> Duration {
        let asked = stored.retention();
        self.of(&stored.event.issuer).map_or(asked, |kept| kept.retention.max(asked))
    }

    fn is_over(&self, stored: &StoredEvent, received_uptime: i64) -> bool {
        let retention = self.retention(stored);
        let ran = u64::try_from(self.uptime.saturating_sub(received_uptime)).unwrap_or(0);
        Duration::from_millis(ran) > retention && self.wall.since(stored.received_at) > retention
    }

    /// Returns until when tokens were issued that a deleted event may have ended, as running time: until it was
    /// received plus the leeway, because the clock of their issuer may have been ahead.
    fn until(&self, stored: &StoredEvent, received_uptime: i64) -> i64 {
        let leeway = self.of(&stored.event.issuer).map(|kept| kept.leeway);
        // For an issuer that is no longer configured, the largest leeway of the others.
        let leeway = leeway.or_else(|| self.kept.iter().map(|kept| kept.leeway).max()).unwrap_or_default();
        received_uptime.saturating_add(millis(leeway))
    }
}

/// Deletes the expired events among the next `limit` candidates, in the order of their expiry.
pub(super) fn trim(
    db: &Connection,
    after: Option<TrimCursor>,
    limit: usize,
    terms: &TrimTerms,
) -> rusqlite::Result<Trimmed> {
    let after = after.unwrap_or(TrimCursor { expires_at: Timestamp::from_millis(i64::MIN), sequence: 0 });
    // No row is deleted before its `expires_at`, and the index finds those rows.
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

/// Identifies what an event names. The keys of subjects never equal those of others, but nothing relies on that.
fn class(stored: &StoredEvent) -> (bool, Key) {
    (stored.event.kind.shares_keys_with(EventKind::RoleChanged), stored.event.key)
}

/// The resolution of remembered retentions, within their margin: the moments from which they were computed
/// differ by milliseconds.
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

/// Returns what is remembered of all deleted events: for each issuer, one entry per retention that its
/// settings ever required.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::{Event, EventSource};
    use crate::state::rows::Arrival;
    use crate::state::schema;
    use crate::time::{Monotonic, Now};

    const SECOND: i64 = 1_000;

    fn kept(issuer: &str, retention: u64, leeway: u64) -> Kept {
        let (retention, leeway) = (Duration::from_secs(retention), Duration::from_secs(leeway));
        Kept { issuer: issuer.into(), retention, leeway }
    }

    fn terms(wall: i64, uptime: i64, kept: &[Kept]) -> TrimTerms {
        let clock = Uptime::resume(0, Monotonic::from_millis(0));
        TrimTerms { wall: Timestamp::from_millis(wall), uptime, clock, kept: kept.into() }
    }

    fn revoked(issuer: &str, subject: &str, expires_at: i64) -> Event {
        let expires_at = Timestamp::from_millis(expires_at);
        Event::subject(
            EventKind::SubjectRevoked,
            &issuer.into(),
            subject,
            Timestamp::from_secs(1),
            expires_at,
        )
    }

    /// An event that arrived at 10 s by the wall clock and was to be kept for a minute when it was made.
    fn stored() -> StoredEvent {
        StoredEvent {
            sequence: 1,
            event: revoked("https://a/", "alice", 70 * SECOND),
            undoes: None,
            source: EventSource::Admin,
            received_at: Timestamp::from_secs(10),
            undone: false,
        }
    }

    #[test]
    fn an_event_is_over_once_more_than_its_retention_has_passed_on_both_clocks() {
        let (long, short) = ([kept("https://a/", 90, 0)], [kept("https://a/", 30, 0)]);
        let other = [kept("https://b/", 90, 0)];
        // Received at 5 s of running time.
        for (settings, wall, uptime, is_over) in [
            (&[][..], 70_001, 65_001, true),
            (&[], 70_000, 65_001, false),
            (&[], 70_001, 65_000, false),
            (&[], 70_001, 4_000, false),
            (&long, 100_001, 95_001, true),
            (&long, 100_000, 95_001, false),
            (&long, 100_001, 95_000, false),
            (&short, 70_001, 65_001, true),
            (&short, 70_000, 65_001, false),
            (&other, 70_001, 65_001, true),
        ] {
            let over = terms(wall, uptime, settings).is_over(&stored(), 5_000);
            assert_eq!(over, is_over, "{wall} {uptime} {settings:?}");
        }
    }

    #[test]
    fn what_a_deleted_event_may_have_ended_was_issued_until_it_came_and_by_the_leeway_longer() {
        let both = [kept("https://a/", 0, 3), kept("https://b/", 0, 7)];
        for (settings, until) in [(&[][..], 5_000), (&both[..1], 8_000), (&both[1..], 12_000), (&both, 8_000)]
        {
            assert_eq!(terms(0, 0, settings).until(&stored(), 5_000), until, "{settings:?}");
        }
    }

    #[test]
    fn events_are_deleted_a_few_at_a_time_in_the_order_in_which_they_expire_and_remembered() {
        let database = schema::in_memory(Now::at_millis(0)).unwrap();
        let db = &database.connection;
        let came = |uptime| Arrival { source: EventSource::Admin, wall: Timestamp::from_secs(10), uptime };
        let append = |event: &Event, uptime| rows::append(db, event, came(uptime)).unwrap().sequence;
        // Kept for 61.5 s, 90 s and 119.9 s.
        let second = append(&revoked("https://a/", "bob", 100_000), 2_000);
        let first = append(&revoked("https://a/", "alice", 71_500), 1_000);
        let third = append(&revoked("https://b/", "carol", 129_900), 3_000);
        let later = append(&revoked("https://b/", "dave", 900_000), 4_000);
        let settings = [kept("https://a/", 0, 5)];
        let terms = terms(500_000, 400_000, &settings);
        let trimmed = trim(db, None, 2, &terms).unwrap();
        assert_eq!(trimmed.deleted, 2);
        let at_second = TrimCursor { expires_at: Timestamp::from_secs(100), sequence: second };
        assert_eq!(trimmed.next, Some(at_second), "as many as asked for: there may be more");
        let names = |trimmed: &Trimmed| {
            let mut names: Vec<_> = trimmed.names.iter().map(|(_, key, left)| (*key, left.len())).collect();
            names.sort_unstable();
            names
        };
        let key = |issuer, subject| (revoked(issuer, subject, 0).key, 0);
        let mut both = vec![key("https://a/", "alice"), key("https://a/", "bob")];
        both.sort_unstable();
        assert_eq!(names(&trimmed), both);
        let remembered = |minutes: u64, issuer: &str, until| Forgotten {
            issuer: issuer.into(),
            until: Monotonic::from_millis(until),
            retention: Duration::from_secs(minutes * 60),
        };
        assert_eq!(trimmed.forgotten, [remembered(1, "https://a/", 7_000)], "to the minute, the latest");

        let trimmed = trim(db, trimmed.next, 2, &terms).unwrap();
        assert_eq!((trimmed.deleted, trimmed.next), (1, None));
        assert_eq!(names(&trimmed), [key("https://b/", "carol")]);
        let all = [remembered(1, "https://a/", 7_000), remembered(1, "https://b/", 8_000)];
        assert_eq!(trimmed.forgotten, all, "of an issuer without settings by the largest leeway");
        assert_eq!(forgotten(db, terms.clock), Ok(all.to_vec()));
        let left = rows::events(db, 0, 9).unwrap();
        assert_eq!(left.iter().map(|stored| stored.sequence).collect::<Vec<_>>(), [later]);
        assert!(first > second && third > first, "not in the order of their sequences");

        let trimmed = trim(db, None, 2, &terms).unwrap();
        assert_eq!(trimmed, Trimmed::default(), "nothing is read again when nothing is deleted");
    }

    #[test]
    fn what_was_taken_back_is_deleted_and_not_remembered() {
        let database = schema::in_memory(Now::at_millis(0)).unwrap();
        let db = &database.connection;
        let came = Arrival { source: EventSource::Admin, wall: Timestamp::from_secs(10), uptime: 0 };
        let sequence = rows::append(db, &revoked("https://a/", "alice", 70_000), came).unwrap().sequence;
        assert!(rows::undo(db, sequence, came).unwrap().is_some());
        let trimmed = trim(db, None, 9, &terms(500_000, 400_000, &[])).unwrap();
        assert_eq!(trimmed, Trimmed { deleted: 2, ..Trimmed::default() });
    }
}
