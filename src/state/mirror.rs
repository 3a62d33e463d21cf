//! A copy of a remote log in an in-memory database. It serves lists, ids and undo, and provides the entries to
//! republish when the log has lost them.
//!
//! This module knows entries and places; `redis` knows where the log is and how it can lose entries.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::record::{Appended, Event, EventKind, Identity, StoredEvent};
use super::redis::entry::LogEntry;
use super::rows::{self, Arrival};

/// The places of events that the log has lost.
pub(super) type Lost = HashSet<u64>;

/// What an entry means to a reader that has read all entries before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Adopted {
    /// A new event.
    New(StoredEvent),
    /// The event at this place was undone.
    Undone(u64),
    /// The entry is already known.
    Known,
}

/// Adds an entry to the copy. The first entry with an identity is the event, whatever follows with the same
/// identity; an event that the log lost and received again moves to its new place. `uptime` is the running time
/// of this gate, so that the entry is kept as long as if it had just been received.
pub(super) fn adopt(
    db: &Connection,
    entry: &LogEntry,
    uptime: i64,
    lost: &mut Lost,
) -> rusqlite::Result<Adopted> {
    let (detail, target) = match &entry.undoes {
        None => (rows::detail(entry.event.role_version), None),
        Some(target) => match undone(db, entry, target)? {
            Some((target, undone)) => (rows::signed(target), Some((target, undone))),
            // The event has expired here, so there is nothing to undo.
            None => return Ok(Adopted::Known),
        },
    };
    if let Some(Appended { sequence: held, .. }) = rows::find(db, &Identity::of(&entry.event), detail)? {
        if held != entry.sequence && lost.remove(&held) {
            r#move(db, held, entry.sequence)?;
        }
        lost.remove(&entry.sequence);
        return Ok(Adopted::Known);
    }
    let LogEntry { sequence, ref event, source, received_at, .. } = *entry;
    let arrival = Arrival { source, wall: received_at, uptime };
    rows::insert(db, Some(sequence), event, detail, arrival)?;
    match target {
        Some((target, false)) => {
            db.prepare_cached("UPDATE events SET undone = 1 WHERE sequence = ?1")?
                .execute([rows::signed(target)])?;
            Ok(Adopted::Undone(target))
        }
        Some((_, true)) => Ok(Adopted::Known),
        None => Ok(Adopted::New(StoredEvent {
            sequence,
            event: event.clone(),
            undoes: None,
            source,
            received_at,
            undone: false,
        })),
    }
}

/// Returns the place of each of these events that is known.
pub(super) fn find_all(db: &Connection, events: &[Event]) -> rusqlite::Result<Vec<Option<Appended>>> {
    let found = events.iter().map(|event| match event.kind {
        EventKind::Undone => Ok(None),
        _ => rows::find(db, &Identity::of(event), rows::detail(event.role_version)),
    });
    found.collect()
}

/// Whether adopting this entry would change nothing.
pub(super) fn is_known(db: &Connection, entry: &LogEntry) -> rusqlite::Result<bool> {
    match &entry.undoes {
        None => {
            let detail = rows::detail(entry.event.role_version);
            Ok(rows::find(db, &Identity::of(&entry.event), detail)?.is_some())
        }
        Some(target) => Ok(undone(db, entry, target)?.is_none_or(|(_, undone)| undone)),
    }
}

/// The event at this place and, if it undoes another event, the identity of that one.
pub(super) fn entry(db: &Connection, sequence: u64) -> rusqlite::Result<Option<LogEntry>> {
    let Some(stored) = rows::event(db, sequence)? else { return Ok(None) };
    let undoes = match stored.undoes {
        Some(target) => match rows::event(db, target)? {
            Some(target) => Some(Identity::of(&target.event)),
            None => return Ok(None),
        },
        None => None,
    };
    Ok(Some(LogEntry::again(stored, undoes)))
}

/// Whether an event is at this place.
pub(super) fn has(db: &Connection, sequence: u64) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM events WHERE sequence = ?1")?.exists([rows::signed(sequence)])
}

/// All places after this one.
pub(super) fn places_after(db: &Connection, sequence: u64) -> rusqlite::Result<Lost> {
    db.prepare_cached("SELECT sequence FROM events WHERE sequence > ?1")?
        .query_map([rows::signed(sequence)], |row| row.get(0).map(rows::unsigned))?
        .collect()
}

/// The place of the event that an entry undoes, and whether it is already undone.
fn undone(db: &Connection, entry: &LogEntry, target: &Identity) -> rusqlite::Result<Option<(u64, bool)>> {
    if target.kind == EventKind::Undone {
        return Ok(None);
    }
    let detail = rows::detail(target.role_version);
    if let Some(found) = rows::find(db, target, detail)? {
        return Ok(Some((found.sequence, found.undone)));
    }
    if entry.names_origin {
        return Ok(None);
    }
    // An entry of an earlier release, which does not distinguish signals.
    db.prepare_cached(
        "SELECT sequence, undone FROM events WHERE key = ?1 AND kind = ?2 AND at = ?3 AND detail = ?4 LIMIT 1",
    )?
    .query_row(params![target.key.to_bytes(), target.kind.code(), target.at.as_millis(), detail], |row| {
        Ok((rows::unsigned(row.get(0)?), row.get(1)?))
    })
    .optional()
}

fn r#move(db: &Connection, from: u64, to: u64) -> rusqlite::Result<()> {
    let (from, to) = (rows::signed(from), rows::signed(to));
    let undone = EventKind::Undone.code();
    db.prepare_cached("UPDATE events SET sequence = ?2 WHERE sequence = ?1")?.execute([from, to])?;
    db.prepare_cached("UPDATE events SET detail = ?2 WHERE kind = ?3 AND detail = ?1")?
        .execute([from, to, undone])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::EventSource;
    use crate::state::schema;
    use crate::time::{Now, Timestamp};

    const NOW: Timestamp = Timestamp::from_secs(100);

    fn event(jti: &str) -> Event {
        Event::token(&"https://a/".into(), jti, NOW, Timestamp::from_secs(1_000))
    }

    fn at(sequence: u64, jti: &str) -> LogEntry {
        LogEntry { sequence, ..LogEntry::new(&event(jti), EventSource::Admin, NOW) }
    }

    fn undoing(sequence: u64, jti: &str) -> LogEntry {
        let undone = Event { kind: EventKind::Undone, ..event(jti) };
        let undoes = Some(Identity::of(&event(jti)));
        LogEntry { sequence, undoes, ..LogEntry::new(&undone, EventSource::Admin, NOW) }
    }

    #[test]
    fn the_first_place_of_an_event_stands() {
        let database = schema::in_memory(Now::at_millis(100_000)).unwrap();
        let (db, lost) = (&database.connection, &mut Lost::new());
        assert!(matches!(adopt(db, &at(5, "a"), 0, lost), Ok(Adopted::New(stored)) if stored.sequence == 5));
        assert_eq!(adopt(db, &at(9, "a"), 0, lost), Ok(Adopted::Known));
        assert_eq!(adopt(db, &undoing(10, "a"), 0, lost), Ok(Adopted::Undone(5)));
        assert_eq!(adopt(db, &undoing(11, "a"), 0, lost), Ok(Adopted::Known));
        assert_eq!(adopt(db, &at(12, "a"), 0, lost), Ok(Adopted::Known), "it stays undone");
        let found = find_all(db, &[event("a"), event("b")]).unwrap();
        assert_eq!(found, [Some(Appended { sequence: 5, new: false, undone: true, at: NOW }), None]);
    }

    #[test]
    fn an_entry_is_known_when_adopting_it_would_change_nothing() {
        let database = schema::in_memory(Now::at_millis(100_000)).unwrap();
        let (db, lost) = (&database.connection, &mut Lost::new());
        let known = |entry: &LogEntry| is_known(db, entry).unwrap();
        assert!(!known(&at(5, "a")));
        assert!(known(&undoing(6, "a")), "there is nothing to undo");
        adopt(db, &at(5, "a"), 0, lost).unwrap();
        assert!(known(&at(5, "a")) && !known(&undoing(6, "a")) && !known(&at(7, "b")));
        adopt(db, &undoing(6, "a"), 0, lost).unwrap();
        assert!(known(&undoing(6, "a")));
    }

    #[test]
    fn what_was_lost_and_came_again_has_its_new_place_everywhere() {
        let database = schema::in_memory(Now::at_millis(100_000)).unwrap();
        let (db, none) = (&database.connection, &mut Lost::new());
        for entry in [at(5, "a"), undoing(6, "a"), at(7, "b")] {
            adopt(db, &entry, 0, none).unwrap();
        }
        let again: Vec<LogEntry> = [5, 6, 7].map(|place| entry(db, place).unwrap().unwrap()).into();
        let mut lost = places_after(db, 0).unwrap();
        assert_eq!(lost.len(), 3);
        for (place, entry) in [20, 21, 22].into_iter().zip(again) {
            let adopted = adopt(db, &LogEntry { sequence: place, ..entry }, 0, &mut lost).unwrap();
            assert_eq!(adopted, Adopted::Known);
        }
        assert!(lost.is_empty());
        assert_eq!(places_after(db, 0).unwrap(), [20, 21, 22].into());
        let undo = rows::event(db, 21).unwrap().unwrap();
        assert_eq!((undo.undoes, rows::event(db, 20).unwrap().unwrap().undone), (Some(20), true));
        assert!(has(db, 22).unwrap() && !has(db, 7).unwrap());
    }
}
