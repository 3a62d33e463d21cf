//! Directories: named sets of documents that change together, with a revision that is unique to each state.
//!
//! This module does not interpret the documents. A holder of a copy asks for the changes since its revision, and can
//! change the directory only from the latest revision: of two concurrent changes, one fails and must be planned again.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::transfer::DirectoryLine;
use super::{Store, StoreError};

/// One document of a directory; without a body it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name in the directory.
    pub key: Box<str>,
    /// Its content.
    pub body: Option<Box<str>>,
}

/// A state of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectoryRevision {
    /// Grows by one with each change; 0 if the directory does not exist.
    pub number: u64,
    /// Distinguishes it from a state with the same number on another server.
    pub token: Box<str>,
}

/// What changed in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryNews {
    /// Its current revision.
    pub revision: DirectoryRevision,
    /// The entries are the whole directory: documents that are not among them no longer exist.
    pub is_whole: bool,
    /// The entries that changed.
    pub entries: Vec<DirectoryEntry>,
}

/// How many entries are read at once, so that other work does not wait long.
pub(super) const PAGE: usize = 2_000;

impl Store {
    /// Returns what changed in a directory since the revision `known`; `None` if nothing did.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn directory_news(
        &self,
        name: &str,
        known: &DirectoryRevision,
    ) -> Result<Option<DirectoryNews>, StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.directory_news(name, known).await;
        }
        let name: Arc<str> = name.into();
        let of = Arc::clone(&name);
        let revision = self.writer.read(move |db| revision(db, &of)).await?;
        if revision == *known {
            return Ok(None);
        }
        // Reading page by page is safe: the file belongs to this process, and nobody but the caller
        // changes the directory.
        let mut entries: Vec<DirectoryEntry> = Vec::new();
        loop {
            let (of, after) = (Arc::clone(&name), entries.last().map(|entry| entry.key.clone()));
            let part = self.writer.read(move |db| page(db, &of, after.as_deref())).await?;
            let is_last = part.len() < PAGE;
            entries.extend(part);
            if is_last {
                return Ok(Some(DirectoryNews { revision, is_whole: true, entries }));
            }
        }
    }

    /// Changes a directory whose revision is `known`, atomically. Returns its new revision, or `None` if its
    /// revision is not `known`. The number of the new revision is also greater than `above`.
    ///
    /// # Errors
    /// When the store cannot be written. The change may have been made nevertheless.
    pub async fn change_directory(
        &self,
        name: &str,
        known: &DirectoryRevision,
        entries: Vec<DirectoryEntry>,
        above: u64,
    ) -> Result<Option<DirectoryRevision>, StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.change_directory(name, known, &entries, above).await;
        }
        let (name, known) = (name.to_owned(), known.clone());
        self.writer.run(move |db| change(db, &name, &known, &entries, above)).await
    }
}

/// Returns all directories, each with all its documents.
pub(super) fn all(db: &Connection) -> rusqlite::Result<Vec<DirectoryLine>> {
    let mut directories = db.prepare_cached("SELECT name, revision FROM directories ORDER BY name")?;
    let directories = directories.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    let of = "SELECT key, body FROM directory_entries WHERE directory = ?1 ORDER BY key";
    directories
        .map(|directory| {
            let (name, revision): (String, i64) = directory?;
            let mut entries = db.prepare_cached(of)?;
            let entries = entries.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let entries = entries.collect::<rusqlite::Result<_>>()?;
            Ok(DirectoryLine { name, revision: u64::try_from(revision).unwrap_or(0), entries })
        })
        .collect()
}

fn revision(db: &Connection, name: &str) -> rusqlite::Result<DirectoryRevision> {
    let found = db
        .prepare_cached("SELECT revision FROM directories WHERE name = ?1")?
        .query_row([name], |row| row.get::<_, i64>(0))
        .optional()?;
    let number = found.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    Ok(DirectoryRevision { number, token: "".into() })
}

fn page(db: &Connection, name: &str, after: Option<&str>) -> rusqlite::Result<Vec<DirectoryEntry>> {
    db.prepare_cached(
        "SELECT key, body FROM directory_entries WHERE directory = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
    )?
    .query_map(params![name, after.unwrap_or_default(), i64::try_from(PAGE).unwrap_or(i64::MAX)], |row| {
        let (key, body): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(DirectoryEntry { key: key.into(), body: Some(body.into()) })
    })?
    .collect()
}

fn change(
    db: &Connection,
    name: &str,
    known: &DirectoryRevision,
    entries: &[DirectoryEntry],
    above: u64,
) -> rusqlite::Result<Option<DirectoryRevision>> {
    // Checked before anything is written, because the transaction is shared with other jobs.
    if revision(db, name)? != *known {
        return Ok(None);
    }
    let number = known.number.max(above) + 1;
    db.prepare_cached(
        "INSERT INTO directories (name, revision) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET revision = excluded.revision",
    )?
    .execute(params![name, i64::try_from(number).unwrap_or(i64::MAX)])?;
    let mut put = db.prepare_cached(
        "INSERT INTO directory_entries (directory, key, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (directory, key) DO UPDATE SET body = excluded.body",
    )?;
    let mut delete = db.prepare_cached("DELETE FROM directory_entries WHERE directory = ?1 AND key = ?2")?;
    for entry in entries {
        match &entry.body {
            Some(body) => put.execute(params![name, entry.key, body])?,
            None => delete.execute(params![name, entry.key])?,
        };
    }
    Ok(Some(DirectoryRevision { number, token: "".into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    fn entry(key: &str, body: Option<&str>) -> DirectoryEntry {
        DirectoryEntry { key: key.into(), body: body.map(Into::into) }
    }

    fn at(number: u64) -> DirectoryRevision {
        DirectoryRevision { number, token: "".into() }
    }

    #[tokio::test]
    async fn all_directories_are_copied_with_all_their_documents() {
        let store = Store::in_memory(Now::at_millis(0)).unwrap();
        for (name, key) in [("b", "x"), ("a", "z"), ("a", "y")] {
            let known = store.directory_news(name, &at(0)).await.unwrap().map_or(at(0), |news| news.revision);
            store.change_directory(name, &known, vec![entry(key, Some(name))], 0).await.unwrap().unwrap();
        }
        let copied = store.transact(all).await.unwrap();
        let copied: Vec<_> =
            copied.into_iter().map(|line| (line.name, line.revision, line.entries)).collect();
        let document = |key: &str, body: &str| (key.to_owned(), body.to_owned());
        let of_a = vec![document("y", "a"), document("z", "a")];
        assert_eq!(copied, [("a".to_owned(), 2, of_a), ("b".to_owned(), 1, vec![document("x", "b")])]);
    }

    #[tokio::test]
    async fn a_directory_changes_only_from_the_revision_it_has_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = Store::open(&path, Now::at_millis(0)).unwrap();
        assert_eq!(store.directory_news("a", &at(0)).await.unwrap(), None);
        let change = |known: u64, key: &'static str, body: Option<&'static str>| {
            let store = store.clone();
            async move { store.change_directory("a", &at(known), vec![entry(key, body)], 0).await.unwrap() }
        };
        assert_eq!(change(0, "x", Some("1")).await, Some(at(1)));
        assert_eq!(change(0, "y", Some("2")).await, None, "not the revision it has");
        assert_eq!(change(1, "y", Some("2")).await, Some(at(2)));
        assert_eq!(change(2, "x", None).await, Some(at(3)));
        assert_eq!(change(3, "z", Some("3")).await, Some(at(4)));
        assert_eq!(store.directory_news("a", &at(4)).await.unwrap(), None);
        assert_eq!(store.directory_news("b", &at(0)).await.unwrap(), None, "directories are apart");
        store.close().await;
        drop(store);
        let store = Store::open(&path, Now::at_millis(0)).unwrap();
        let news = store.directory_news("a", &at(0)).await.unwrap().unwrap();
        let entries = vec![entry("y", Some("2")), entry("z", Some("3"))];
        assert_eq!(news, DirectoryNews { revision: at(4), is_whole: true, entries });
        let lifted = store.change_directory("a", &at(4), Vec::new(), 9).await.unwrap();
        assert_eq!(lifted, Some(at(10)));
    }

    #[tokio::test]
    async fn a_directory_of_many_pages_is_read_whole() {
        let store = Store::in_memory(Now::at_millis(0)).unwrap();
        for count in [1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE] {
            let name = count.to_string();
            let entries: Vec<_> = (0..count).map(|i| entry(&format!("{i:06}"), Some("{}"))).collect();
            store.change_directory(&name, &at(0), entries.clone(), 0).await.unwrap();
            let news = store.directory_news(&name, &at(0)).await.unwrap().unwrap();
            assert_eq!(news.entries, entries, "{count}");
        }
    }
}
