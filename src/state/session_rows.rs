//! The SQL statements about tokens in use.

use std::sync::Arc;

use rusqlite::{Connection, ToSql, params};

use super::record::{PerIssuer, SessionRow};
use super::rows::time;
use super::uptime::Uptime;
use crate::identity::{Key, SubjectKey, TokenKey, TokenNames};

pub(super) fn save_session(db: &Connection, row: &SessionRow, uptime: Uptime) -> rusqlite::Result<()> {
    // The last use only ever moves forward, whatever the order of the writes.
    db.prepare_cached(
        "INSERT INTO sessions (token, issuer, subject, client, issued_at, first_used_at, last_used_at, expires_at, last_used_uptime,
                               names)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET last_used_at = max(last_used_at, excluded.last_used_at),
             last_used_uptime = max(last_used_uptime, excluded.last_used_uptime)",
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
        uptime.at(row.last_used_monotonic),
        row.names.as_ref().map(|names| names.to_bytes()),
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
    uptime: Uptime,
) -> rusqlite::Result<Vec<SessionRow>> {
    let after = after.map_or(Vec::new(), |token| token.0.to_bytes().to_vec());
    db.prepare_cached(
        "SELECT token, issuer, subject, client, issued_at, first_used_at, last_used_at, expires_at, last_used_uptime,
                names
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
            last_used_monotonic: uptime.moment(row.get(8)?),
            names: row.get::<_, Option<Vec<u8>>>(9)?.and_then(|bytes| TokenNames::from_bytes(&bytes)).map(Arc::new),
        })
    })?
    .collect()
}

/// The limits for deleting sessions, on running time.
#[derive(Debug)]
pub(super) struct SessionTrim {
    pub(super) now: i64,
    /// Tokens that have not been used since are idle.
    pub(super) unused_since: PerIssuer<i64>,
    pub(super) leeway: i64,
}

/// Deletes sessions from the 256th part whose tokens begin with the byte `part`: those that were unused for too
/// much running time, and those whose token has expired. Whatever the wall clock said at the last use, the
/// token then had at most its lifetime and two `leeway`s left.
pub(super) fn trim_sessions(db: &Connection, part: u8, terms: &SessionTrim) -> rusqlite::Result<usize> {
    let (mut first, mut last) = ([0; 16], [u8::MAX; 16]);
    (first[0], last[0]) = (part, part);
    let SessionTrim { now, unused_since, leeway } = terms;
    let fixed: [&dyn ToSql; 5] = [&first, &last, unused_since.common(), now, leeway];
    let own = unused_since.own().flat_map(|(issuer, since)| [issuer as &dyn ToSql, since]);
    let values: Vec<&dyn ToSql> = fixed.into_iter().chain(own).collect();
    // A parameter without a number has the next one: they follow the fixed ones.
    let cases = " WHEN ? THEN ?".repeat(unused_since.own().count());
    let unused_since = if cases.is_empty() { "?3" } else { &format!("CASE issuer{cases} ELSE ?3 END") };
    db.prepare_cached(&format!(
        "DELETE FROM sessions WHERE token BETWEEN ?1 AND ?2
         AND (last_used_uptime < ?4 - 2 * ?5 - (expires_at - issued_at) OR last_used_uptime < {unused_since})"
    ))?
    .execute(values.as_slice())
}
