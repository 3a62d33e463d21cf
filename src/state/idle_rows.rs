//! The SQL statements about idle timeouts. The last timeouts in force are stored, so that idle tokens stay idle.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::record::{IdleFloor, IdleTerms, PerIssuer};
use super::rows::{millis, time, unsigned};
use super::uptime::Uptime;

/// Stored instead of a timeout where tokens do not go idle.
const NEVER: i64 = -1;

/// The timeout, then its floor if there is one: wall clock, running time, and the timeout at that time.
type Columns = (i64, Option<i64>, Option<i64>, Option<i64>);

fn columns(terms: &IdleTerms, uptime: Uptime) -> Columns {
    let floor = terms.floor;
    (
        terms.timeout.map_or(NEVER, millis),
        floor.map(|floor| floor.wall.as_millis()),
        floor.map(|floor| uptime.at(floor.monotonic)),
        floor.map(|floor| millis(floor.timeout)),
    )
}

/// Reads the terms from four columns, starting at `first`; `None` if no timeout has been stored yet.
fn terms(row: &Row<'_>, first: usize, uptime: Uptime) -> rusqlite::Result<Option<IdleTerms>> {
    let Some(timeout) = row.get::<_, Option<i64>>(first)? else { return Ok(None) };
    let floor = match (row.get::<_, Option<i64>>(first + 1)?, row.get(first + 2)?, row.get(first + 3)?) {
        (Some(_), Some(monotonic), Some(timeout)) => Some(IdleFloor {
            wall: time(row, first + 1)?,
            monotonic: uptime.moment(monotonic),
            timeout: duration(timeout),
        }),
        _ => None,
    };
    Ok(Some(IdleTerms { timeout: (timeout != NEVER).then(|| duration(timeout)), floor }))
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(unsigned(millis))
}

pub(super) fn save_idle_terms(
    db: &Connection,
    terms: &PerIssuer<IdleTerms>,
    uptime: Uptime,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE origin SET idle_timeout = ?1, idle_floor = ?2, idle_floor_uptime = ?3, idle_floor_timeout = ?4",
    )?
    .execute(columns(terms.common(), uptime))?;
    db.prepare_cached("DELETE FROM idle_terms")?.execute([])?;
    for (issuer, own) in terms.own() {
        let (timeout, floor, floor_uptime, floor_timeout) = columns(own, uptime);
        db.prepare_cached(
            "INSERT INTO idle_terms (issuer, timeout, floor, floor_uptime, floor_timeout) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![issuer, timeout, floor, floor_uptime, floor_timeout])?;
    }
    Ok(())
}

/// Returns the terms that were in force last; `None` if there were none yet.
pub(super) fn idle_terms(db: &Connection, uptime: Uptime) -> rusqlite::Result<Option<PerIssuer<IdleTerms>>> {
    let common = "SELECT idle_timeout, idle_floor, idle_floor_uptime, idle_floor_timeout FROM origin";
    let common = db.prepare_cached(common)?.query_row([], |row| terms(row, 0, uptime))?;
    let Some(common) = common else { return Ok(None) };
    let own: Vec<(Arc<str>, Option<IdleTerms>)> = db
        .prepare_cached("SELECT issuer, timeout, floor, floor_uptime, floor_timeout FROM idle_terms")?
        .query_map([], |row| Ok((row.get(0)?, terms(row, 1, uptime)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let own = own.into_iter().filter_map(|(issuer, terms)| Some((issuer, terms?)));
    Ok(Some(PerIssuer::new(common, own)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::schema;
    use crate::time::{Monotonic, Now, Timestamp};

    #[test]
    fn each_issuer_keeps_its_terms_and_the_last_that_were_saved_count() {
        let database = schema::in_memory(Now::at_millis(0)).unwrap();
        let (db, uptime) = (&database.connection, Uptime::resume(5_000, Monotonic::from_millis(1_000)));
        let (never, minute) = (IdleTerms { timeout: None, floor: None }, Duration::from_secs(60));
        let floor = |wall, monotonic, timeout| IdleFloor {
            wall: Timestamp::from_millis(wall),
            monotonic: Monotonic::from_millis(monotonic),
            timeout,
        };
        let with_floor = IdleTerms { timeout: Some(minute), floor: Some(floor(-7, 900, minute / 2)) };
        let of = |names: &[(&str, IdleTerms)]| {
            names.iter().map(|(name, it)| ((*name).into(), *it)).collect::<Vec<_>>()
        };
        assert_eq!(idle_terms(db, uptime), Ok(None));
        for terms in [
            PerIssuer::from(with_floor),
            PerIssuer::new(
                never,
                of(&[("https://a/", with_floor), ("of b", IdleTerms { timeout: Some(minute), floor: None })]),
            ),
            PerIssuer::new(with_floor, of(&[("https://a/", never)])),
            PerIssuer::new(
                with_floor,
                of(&[
                    ("https://c/", IdleTerms { timeout: Some(minute), ..with_floor }),
                    ("https://d/", IdleTerms { timeout: None, ..with_floor }),
                ]),
            ),
            PerIssuer::from(never),
        ] {
            for _ in 0..2 {
                assert_eq!(save_idle_terms(db, &terms, uptime), Ok(()));
                assert_eq!(idle_terms(db, uptime), Ok(Some(terms.clone())));
            }
        }
        let later = Uptime::resume(6_000, Monotonic::from_millis(0));
        assert_eq!(save_idle_terms(db, &with_floor.into(), uptime), Ok(()));
        let read = idle_terms(db, later).unwrap().unwrap().common().floor.unwrap();
        assert_eq!(read.monotonic, Monotonic::from_millis(-1_100), "kept as running time");
    }
}
