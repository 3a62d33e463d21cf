//! The SQL statements of the store: one function per operation.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::{
    Appended, Event, EventKind, EventOrigin, EventSource, Identity, StoredEvent, SubjectKind, Undone,
    UsageRow,
};
use crate::identity::Key;
use crate::time::Timestamp;

/// The value of `detail` if there is no role version.
const NOTHING: i64 = -1;

pub(super) const EVENT: &str = "sequence, kind, key, at, detail, issuer, subject, client, jti, source, received_at, expires_at, undone, origin, session, subject_kind";

/// When an event arrived, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) source: EventSource,
    pub(super) wall: Timestamp,
    /// On the running time of the store.
    pub(super) uptime: i64,
}

pub(super) fn append(db: &Connection, event: &Event, arrival: Arrival) -> rusqlite::Result<Appended> {
    let detail = detail(event.role_version);
    if insert(db, None, event, detail, arrival)? {
        let sequence = unsigned(db.last_insert_rowid());
        return Ok(Appended { sequence, new: true, undone: false, at: event.at });
    }
    let found = find(db, &Identity::of(event), detail)?;
    found.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Finds the event with this identity.
pub(super) fn find(db: &Connection, event: &Identity, detail: i64) -> rusqlite::Result<Option<Appended>> {
    // The same expressions as in the index, so that SQLite uses it.
    db.prepare_cached(
        "SELECT sequence, undone, at FROM events WHERE key = ?1 AND kind = ?2 AND ifnull(origin, x'') = ?3
         AND (origin IS NOT NULL OR (at = ?4 AND detail = ?5))",
    )?
    .query_row(
        params![
            event.key.to_bytes(),
            event.kind.code(),
            event.origin.map_or_else(Vec::new, |origin| origin.0.to_bytes().to_vec()),
            event.at.as_millis(),
            detail
        ],
        |row| {
            Ok(Appended {
                sequence: unsigned(row.get(0)?),
                new: false,
                undone: row.get(1)?,
                at: time(row, 2)?,
            })
        },
    )
    .optional()
}

/// The value of `detail` for a role version.
pub(super) fn detail(role_version: Option<u64>) -> i64 {
    role_version.map_or(NOTHING, |version| i64::try_from(version).unwrap_or(i64::MAX))
}

/// Inserts an event at this place, or at the next one. Returns false if the event already exists.
pub(super) fn insert(
    db: &Connection,
    sequence: Option<u64>,
    event: &Event,
    detail: i64,
    arrival: Arrival,
) -> rusqlite::Result<bool> {
    let inserted = db
        .prepare_cached(
            "INSERT INTO events (kind, key, at, detail, issuer, subject, client, jti, source, received_at, expires_at,
                                 sequence, received_uptime, origin, session, subject_kind)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            event.kind.code(),
            event.key.to_bytes(),
            event.at.as_millis(),
            detail,
            event.issuer,
            event.subject,
            event.client,
            event.jti,
            arrival.source.code(),
            arrival.wall.as_millis(),
            event.expires_at.as_millis(),
            sequence.map(signed),
            arrival.uptime,
            event.origin.map(|origin| origin.0.to_bytes()),
            event.session,
            event.subject_kind.code(),
        ])?;
    Ok(inserted == 1)
}

/// Returns the event at this place.
pub(super) fn event(db: &Connection, sequence: u64) -> rusqlite::Result<Option<StoredEvent>> {
    db.prepare_cached(&format!("SELECT {EVENT} FROM events WHERE sequence = ?1"))?
        .query_row([signed(sequence)], stored)
        .optional()
}

pub(super) fn undo(db: &Connection, sequence: u64, arrival: Arrival) -> rusqlite::Result<Option<Undone>> {
    let Some(mut event) = event(db, sequence)?.filter(|found| found.event.kind != EventKind::Undone) else {
        return Ok(None);
    };
    if !event.undone {
        db.prepare_cached("UPDATE events SET undone = 1 WHERE sequence = ?1")?.execute([signed(sequence)])?;
        event.undone = true;
        insert(db, None, &event.event.undoing(arrival.wall), signed(sequence), arrival)?;
    }
    let remaining = counting(db, event.event.kind, event.event.key)?;
    Ok(Some(Undone { event, remaining }))
}

/// Returns the events in effect for what an event of this kind and key names.
pub(super) fn counting(db: &Connection, kind: EventKind, key: Key) -> rusqlite::Result<Vec<StoredEvent>> {
    db.prepare_cached(&format!("SELECT {EVENT} FROM events WHERE key = ?1 AND undone = 0"))?
        .query_map([key.to_bytes()], stored)?
        .filter(|row| row.as_ref().map_or(true, |row| row.event.kind.shares_keys_with(kind)))
        .collect()
}

pub(super) fn events(db: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<StoredEvent>> {
    db.prepare_cached(&format!("SELECT {EVENT} FROM events WHERE sequence > ?1 ORDER BY sequence LIMIT ?2"))?
        .query_map(params![signed(after), i64::try_from(limit).unwrap_or(i64::MAX)], stored)?
        .collect()
}

pub(super) fn live_events(
    db: &Connection,
    of: Option<(EventKind, Key)>,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let (after, limit) = (signed(after), i64::try_from(limit).unwrap_or(i64::MAX));
    match of {
        Some((kind, key)) => db
            .prepare_cached(&format!(
                "SELECT {EVENT} FROM events WHERE key = ?3 AND kind = ?4 AND undone = 0 AND sequence > ?1
                 ORDER BY sequence LIMIT ?2"
            ))?
            .query_map(params![after, limit, key.to_bytes(), kind.code()], stored)?
            .collect(),
        None => db
            .prepare_cached(&format!(
                "SELECT {EVENT} FROM events WHERE kind <> ?3 AND undone = 0 AND sequence > ?1
                 ORDER BY sequence LIMIT ?2"
            ))?
            .query_map(params![after, limit, EventKind::Undone.code()], stored)?
            .collect(),
    }
}

/// Returns the highest sequence that was ever assigned.
pub(super) fn last_sequence(db: &Connection) -> rusqlite::Result<u64> {
    let last = db
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(last.map_or(0, unsigned))
}

/// Makes the next sequence higher than this one.
pub(super) fn skip_to(db: &Connection, sequence: u64) -> rusqlite::Result<()> {
    let sequence = signed(sequence);
    let there = db.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events'", [sequence])?;
    if there == 0 {
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?1)", [sequence])?;
    }
    Ok(())
}

/// Saves the running time up to this moment.
pub(super) fn count_uptime(db: &Connection, uptime: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE origin SET uptime = max(uptime, ?1)")?.execute([uptime])?;
    Ok(())
}

/// Moves back the moment since which the store knows everything; a later one changes nothing.
pub(super) fn lower_not_before(db: &Connection, not_before: Timestamp) -> rusqlite::Result<()> {
    db.execute("UPDATE origin SET not_before = min(not_before, ?1)", [not_before.as_millis()])?;
    Ok(())
}

/// Sets the moment since which the store knows everything.
pub(super) fn set_not_before(db: &Connection, not_before: Timestamp) -> rusqlite::Result<()> {
    db.execute("UPDATE origin SET not_before = ?1", [not_before.as_millis()])?;
    Ok(())
}

pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let kind = EventKind::from_code(row.get(1)?).ok_or_else(|| unknown(1, "kind"))?;
    let detail: i64 = row.get(4)?;
    let detail = (detail != NOTHING).then(|| unsigned(detail));
    let (role_version, undoes) = if kind == EventKind::Undone { (None, detail) } else { (detail, None) };
    Ok(StoredEvent {
        sequence: unsigned(row.get(0)?),
        event: Event {
            kind,
            key: Key::from_bytes(row.get(2)?),
            at: time(row, 3)?,
            role_version,
            issuer: row.get(5)?,
            subject: row.get(6)?,
            subject_kind: SubjectKind::from_code(row.get(15)?).ok_or_else(|| unknown(15, "subject_kind"))?,
            session: row.get(14)?,
            client: row.get(7)?,
            jti: row.get(8)?,
            expires_at: time(row, 11)?,
            origin: row.get::<_, Option<[u8; 16]>>(13)?.map(|bytes| EventOrigin(Key::from_bytes(bytes))),
        },
        undoes,
        source: EventSource::from_code(row.get(9)?).ok_or_else(|| unknown(9, "source"))?,
        received_at: time(row, 10)?,
        undone: row.get(12)?,
    })
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn save_key_set(
    db: &Connection,
    (issuer, source): (&str, &str),
    body: &[u8],
    (at, running): (Timestamp, i64),
) -> rusqlite::Result<()> {
    // One row per issuer: this gate takes an issuer's keys from one source.
    db.prepare_cached(
        "INSERT OR REPLACE INTO key_sets (issuer, source, body, fetched_at, fetched_uptime)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![issuer, source, body, at.as_millis(), running])?;
    Ok(())
}

pub(super) fn key_set(
    db: &Connection,
    (issuer, source): (&str, &str),
) -> rusqlite::Result<Option<(Vec<u8>, Timestamp, i64)>> {
    db.prepare_cached(
        "SELECT body, fetched_at, fetched_uptime FROM key_sets WHERE issuer = ?1 AND source = ?2",
    )?
    .query_row([issuer, source], |row| Ok((row.get(0)?, time(row, 1)?, row.get(2)?)))
    .optional()
}

pub(super) fn add_usage(db: &Connection, row: &UsageRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO usage (client, route, status, count, last_used_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET count = count + excluded.count, last_used_at = max(last_used_at, excluded.last_used_at)",
    )?
    .execute(params![row.client, row.route, row.status, signed(row.count), row.last_used_at.as_millis()])?;
    Ok(())
}

pub(super) fn usage(db: &Connection, client: Option<&str>) -> rusqlite::Result<Vec<UsageRow>> {
    db.prepare_cached(
        "SELECT client, route, status, count, last_used_at FROM usage
         WHERE ?1 IS NULL OR client = ?1 ORDER BY client, route, status",
    )?
    .query_map([client], |row| {
        Ok(UsageRow {
            client: row.get(0)?,
            route: row.get(1)?,
            status: row.get(2)?,
            count: unsigned(row.get(3)?),
            last_used_at: time(row, 4)?,
        })
    })?
    .collect()
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

/// SQLite's integers are `i64`; no sequence comes near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn unknown(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, format!("unknown {what}").into())
}
