//! The statements: one function for each thing the store does with a row.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::{Appended, Event, EventKind, SessionRow, Source, StoredEvent, Undone, UsageRow};
use crate::identity::{Key, SubjectKey, TokenKey};
use crate::time::Timestamp;

/// What stands in `detail` when there is nothing to say.
const NOTHING: i64 = -1;

const EVENT: &str =
    "sequence, kind, key, at, detail, issuer, subject, client, jti, source, received_at, expires_at, undone";

pub(super) fn append(
    db: &Connection,
    event: &Event,
    source: Source,
    received_at: Timestamp,
) -> rusqlite::Result<Appended> {
    let detail = detail(event.role_version);
    if insert(db, None, event, detail, source, received_at)? {
        return Ok(Appended { sequence: unsigned(db.last_insert_rowid()), new: true, undone: false });
    }
    db.prepare_cached(
        "SELECT sequence, undone FROM events WHERE key = ?1 AND kind = ?2 AND at = ?3 AND detail = ?4",
    )?
    .query_row(params![event.key.to_bytes(), event.kind.code(), event.at.as_millis(), detail], |row| {
        Ok(Appended { sequence: unsigned(row.get(0)?), new: false, undone: row.get(1)? })
    })
}

/// What stands in `detail` for a role version.
pub(super) fn detail(role_version: Option<u64>) -> i64 {
    role_version.map_or(NOTHING, |version| i64::try_from(version).unwrap_or(i64::MAX))
}

/// At this place, or the next. False when the event is there already.
pub(super) fn insert(
    db: &Connection,
    sequence: Option<u64>,
    event: &Event,
    detail: i64,
    source: Source,
    received_at: Timestamp,
) -> rusqlite::Result<bool> {
    let inserted = db
        .prepare_cached(
            "INSERT INTO events (kind, key, at, detail, issuer, subject, client, jti, source, received_at, expires_at, sequence)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
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
            source.code(),
            received_at.as_millis(),
            event.expires_at.as_millis(),
            sequence.map(signed),
        ])?;
    Ok(inserted == 1)
}

/// The event at this place.
pub(super) fn event(db: &Connection, sequence: u64) -> rusqlite::Result<Option<StoredEvent>> {
    db.prepare_cached(&format!("SELECT {EVENT} FROM events WHERE sequence = ?1"))?
        .query_row([signed(sequence)], stored)
        .optional()
}

pub(super) fn undo(
    db: &Connection,
    sequence: u64,
    source: Source,
    now: Timestamp,
) -> rusqlite::Result<Option<Undone>> {
    let Some(mut event) = event(db, sequence)?.filter(|found| found.event.kind != EventKind::Undone) else {
        return Ok(None);
    };
    if !event.undone {
        db.prepare_cached("UPDATE events SET undone = 1 WHERE sequence = ?1")?.execute([signed(sequence)])?;
        event.undone = true;
        let undoing = Event { kind: EventKind::Undone, at: now, role_version: None, ..event.event.clone() };
        insert(db, None, &undoing, signed(sequence), source, now)?;
    }
    let remaining = db
        .prepare_cached(&format!("SELECT {EVENT} FROM events WHERE key = ?1 AND undone = 0"))?
        .query_map([event.event.key.to_bytes()], stored)?
        .filter(|row| row.as_ref().map_or(true, |row| row.event.kind.shares_keys_with(event.event.kind)))
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Undone { event, remaining }))
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
    now: Timestamp,
) -> rusqlite::Result<Vec<StoredEvent>> {
    const LIVE: &str = "undone = 0 AND expires_at >= ?1 AND sequence > ?2";
    let undone = EventKind::Undone.code();
    let (now, after, limit) = (now.as_millis(), signed(after), i64::try_from(limit).unwrap_or(i64::MAX));
    match of {
        Some((kind, key)) => db
            .prepare_cached(&format!(
                "SELECT {EVENT} FROM events WHERE key = ?4 AND kind = ?5 AND {LIVE} ORDER BY sequence LIMIT ?3"
            ))?
            .query_map(params![now, after, limit, key.to_bytes(), kind.code()], stored)?
            .collect(),
        // `+expires_at` keeps the planner on the primary key, whose order is asked for.
        None => db
            .prepare_cached(&format!(
                "SELECT {EVENT} FROM events WHERE kind <> ?4 AND undone = 0 AND +expires_at >= ?1 AND sequence > ?2
                 ORDER BY sequence LIMIT ?3"
            ))?
            .query_map(params![now, after, limit, undone], stored)?
            .collect(),
    }
}

pub(super) fn trim_events(db: &Connection, now: Timestamp, limit: usize) -> rusqlite::Result<usize> {
    db.prepare_cached(
        "DELETE FROM events WHERE sequence IN (SELECT sequence FROM events WHERE expires_at < ?1 LIMIT ?2)",
    )?
    .execute([now.as_millis(), i64::try_from(limit).unwrap_or(i64::MAX)])
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
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
            client: row.get(7)?,
            jti: row.get(8)?,
            expires_at: time(row, 11)?,
        },
        undoes,
        source: Source::from_code(row.get(9)?).ok_or_else(|| unknown(9, "source"))?,
        received_at: time(row, 10)?,
        undone: row.get(12)?,
    })
}

pub(super) fn save_session(db: &Connection, row: &SessionRow) -> rusqlite::Result<()> {
    // The last use only ever moves forward, whatever order the writes come in.
    db.prepare_cached(
        "INSERT INTO sessions (token, issuer, subject, client, issued_at, first_used_at, last_used_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET last_used_at = max(last_used_at, excluded.last_used_at)",
    )?
    .execute(params![
        row.token.0.to_bytes(),
        row.issuer,
        row.subject.map(|subject| subject.0.to_bytes()),
        row.client,
        row.issued_at.as_millis(),
        row.first_used_at.as_millis(),
        row.last_used_at.as_millis(),
        row.expires_at.as_millis(),
    ])?;
    Ok(())
}

pub(super) fn forget_session(db: &Connection, token: TokenKey) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM sessions WHERE token = ?1")?.execute([token.0.to_bytes()])?;
    Ok(())
}

pub(super) fn sessions(
    db: &Connection,
    after: Option<TokenKey>,
    limit: usize,
) -> rusqlite::Result<Vec<SessionRow>> {
    let after = after.map_or(Vec::new(), |token| token.0.to_bytes().to_vec());
    db.prepare_cached(
        "SELECT token, issuer, subject, client, issued_at, first_used_at, last_used_at, expires_at
         FROM sessions WHERE token > ?1 ORDER BY token LIMIT ?2",
    )?
    .query_map(params![after, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(SessionRow {
            token: TokenKey(Key::from_bytes(row.get(0)?)),
            issuer: row.get(1)?,
            subject: row.get::<_, Option<[u8; 16]>>(2)?.map(|bytes| SubjectKey(Key::from_bytes(bytes))),
            client: row.get(3)?,
            issued_at: time(row, 4)?,
            first_used_at: time(row, 5)?,
            last_used_at: time(row, 6)?,
            expires_at: time(row, 7)?,
        })
    })?
    .collect()
}

/// Looks through the 256th part of the sessions whose tokens begin with `part`.
pub(super) fn trim_sessions(
    db: &Connection,
    part: u8,
    unused_since: Timestamp,
    expired_since: Timestamp,
) -> rusqlite::Result<usize> {
    let (mut first, mut last) = ([0; 16], [u8::MAX; 16]);
    (first[0], last[0]) = (part, part);
    db.prepare_cached(
        "DELETE FROM sessions WHERE token BETWEEN ?1 AND ?2
         AND (max(last_used_at, issued_at) < ?3 OR expires_at < ?4)",
    )?
    .execute(params![first, last, unused_since.as_millis(), expired_since.as_millis()])
}

pub(super) fn save_key_set(
    db: &Connection,
    (issuer, source): (&str, &str),
    body: &[u8],
    at: Timestamp,
) -> rusqlite::Result<()> {
    // One row for each issuer: this gate takes its keys from one source.
    db.prepare_cached(
        "INSERT OR REPLACE INTO key_sets (issuer, source, body, fetched_at) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![issuer, source, body, at.as_millis()])?;
    Ok(())
}

pub(super) fn key_set(
    db: &Connection,
    (issuer, source): (&str, &str),
) -> rusqlite::Result<Option<(Vec<u8>, Timestamp)>> {
    db.prepare_cached("SELECT body, fetched_at FROM key_sets WHERE issuer = ?1 AND source = ?2")?
        .query_row([issuer, source], |row| Ok((row.get(0)?, time(row, 1)?)))
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

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

/// SQLite counts in `i64`; nothing here gets near its end.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn unknown(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, format!("unknown {what}").into())
}
