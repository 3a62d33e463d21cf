//! Reads the event log backwards, from its newest entry.

use rusqlite::{Connection, params};

use super::record::StoredEvent;
use super::rows::{EVENT, signed, stored};
use super::{Store, StoreError};
use crate::identity::Key;

impl Store {
    /// Returns up to `limit` events before the given sequence, newest first; with `of`, only those with this key.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn events_before(
        &self,
        of: Option<Key>,
        before: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.writer.read(move |db| events_before(db, of, before, limit)).await
    }
}

fn events_before(
    db: &Connection,
    of: Option<Key>,
    before: u64,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let (before, limit) = (signed(before), i64::try_from(limit).unwrap_or(i64::MAX));
    match of {
        // The `+` keeps SQLite from scanning the table by sequence: it uses the index by key and sorts what it finds.
        Some(key) => db
            .prepare_cached(&format!(
                "SELECT {EVENT} FROM events WHERE key = ?3 AND sequence < ?1 ORDER BY +sequence DESC LIMIT ?2"
            ))?
            .query_map(params![before, limit, key.to_bytes()], stored)?
            .collect(),
        None => db
            .prepare_cached(&format!(
                "SELECT {EVENT} FROM events WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2"
            ))?
            .query_map(params![before, limit], stored)?
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::{Event, EventKind, EventSource};
    use crate::time::{Now, Timestamp};

    #[tokio::test]
    async fn the_log_is_read_backwards_in_parts() {
        let store = Store::in_memory(Now::at_millis(1_000)).unwrap();
        let (issuer, end) = ("https://a/".into(), Timestamp::from_secs(9_000_000));
        let event = |subject: &str, at| {
            Event::subject(EventKind::SubjectRevoked, &issuer, subject, Timestamp::from_secs(at), end)
        };
        let events = [event("s", 1), event("t", 2), event("s", 3), event("s", 4)];
        let key = events[0].key;
        store.append(events.into(), EventSource::Admin, Now::at_millis(2_000)).await.unwrap();
        store.undo(3, EventSource::Admin, Now::at_millis(3_000)).await.unwrap();
        let read = async |of, before, limit| {
            let part = store.events_before(of, before, limit).await.unwrap();
            part.iter().map(|stored| stored.sequence).collect::<Vec<_>>()
        };
        assert_eq!(read(None, u64::MAX, 3).await, [5, 4, 3]);
        assert_eq!(read(None, 3, 3).await, [2, 1]);
        assert_eq!(read(None, 1, 3).await, [0; 0]);
        assert_eq!(read(Some(key), u64::MAX, 9).await, [5, 4, 3, 1], "the taking back, too");
        assert_eq!(read(Some(key), 4, 1).await, [3]);
    }
}
