//! Adds a copied state to a store: the store keeps what it has, and whatever was revoked in either stays revoked.
//!
//! No gate can use a store that the import creates before it is complete: until then, an embedded one has
//! another name, a shared one another version. Until the end it rejects tokens issued before the import, so
//! that an interrupted import lets no revoked token through; running it again completes it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::{DirectoryImport, ImportReport, StateCopy};
use crate::state::directory::DirectoryRevision;
use crate::state::redis::entry::LogEntry;
use crate::state::rows;
use crate::state::schema::companion;
use crate::state::{CHUNK, OpenError, Store, StoreError, backup, mirror, redis};
use crate::time::{Now, Timestamp};

/// The name under which the identity of an imported store is kept, in the table of key sets; no issuer has it. Names with
/// this prefix contain the revisions of directories after the last import.
const IMPORTED: (&str, &str) = ("state/imported", "state");
/// The name of the latest beginning of the other imported stores, in milliseconds.
const YOUNGEST: (&str, &str) = ("state/youngest", "state");

/// The store to import into.
#[derive(Debug)]
pub enum ImportingStore<'s> {
    /// The file of an embedded store, and the names of all configured issuers.
    Embedded(&'s Path, Vec<&'s str>),
    /// A shared store, and its terms.
    Redis(&'s redis::Settings, redis::RedisTerms),
}

/// Adds a copy to a store, which is created if it does not exist.
///
/// # Errors
/// When the store is in use, is of another version, or cannot be written. What was added by then stays; the
/// import can be run again.
pub async fn import(copy: &StateCopy, to: ImportingStore<'_>) -> Result<ImportReport, OpenError> {
    match to {
        ImportingStore::Embedded(path, issuers) => embedded(copy, path, &issuers).await,
        ImportingStore::Redis(settings, terms) => redis::write(settings, terms, copy).await,
    }
}

impl StateCopy {
    /// Returns the latest beginning of all imported stores except the first: `imported` is the identity of that one, and
    /// `noted` the result of the imports before this one.
    pub(in crate::state) fn youngest_other(
        &self,
        imported: Option<&str>,
        noted: Option<&str>,
    ) -> Option<Timestamp> {
        let noted = noted.and_then(|millis| millis.parse().ok());
        let own = imported.filter(|first| *first != self.header.identity).map(|_| self.header.not_before);
        noted.max(own).map(Timestamp::from_millis)
    }

    /// Returns since when the store knows everything once it has this copy, if it knew everything since
    /// `known`. The first imported source may move that back: no other store knew more. Each of several sources
    /// may have received events that the others did not, so the latest of their beginnings counts, that of the
    /// `youngest` other one included; and a source that was in use may know more than its copy.
    pub(in crate::state) fn beginning(
        &self,
        known: Timestamp,
        imported: Option<&str>,
        youngest: Option<Timestamp>,
    ) -> Timestamp {
        let copied = Timestamp::from_millis(self.header.not_before);
        match imported {
            Some(other) if other != self.header.identity => known.max(copied),
            _ if self.header.in_use => known,
            _ => known.min(youngest.map_or(copied, |youngest| copied.max(youngest))),
        }
    }
}

async fn embedded(copy: &StateCopy, path: &Path, issuers: &[&str]) -> Result<ImportReport, OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::Io(path.to_owned(), error.to_string());
    let is_new = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
    let unfinished = companion(path, ".importing");
    let place = if is_new { unfinished.as_path() } else { path };
    if is_new {
        // Remove what an interrupted import left.
        for suffix in ["", "-wal", "-shm", ".seen"] {
            drop(std::fs::remove_file(companion(&unfinished, suffix)));
        }
    }
    let store = Store::open(place, Now::read())?;
    let added = add(copy, &store, is_new, issuers).await;
    store.close().await;
    drop(store);
    let report = added.map_err(|error| failed(&error))?;
    if is_new {
        let rename = |suffix| std::fs::rename(companion(&unfinished, suffix), companion(path, suffix));
        // The side file first: without a database it has no effect.
        rename(".seen")
            .and_then(|()| rename(""))
            .and_then(|()| backup::sync_folder(path))
            .map_err(|error| failed(&error))?;
        drop(std::fs::remove_file(companion(&unfinished, ".lock")));
    }
    Ok(report)
}

async fn add(
    copy: &StateCopy,
    store: &Store,
    is_new: bool,
    issuers: &[&str],
) -> Result<ImportReport, StoreError> {
    let now = Now::read();
    let mut report = ImportReport::default();
    for chunk in copy.entries.chunks(CHUNK) {
        let (chunk, uptime) = (chunk.to_vec(), store.uptime().at(now.monotonic));
        let new = store
            .writer
            .run(move |db| {
                chunk.into_iter().map(|entry| adopt(db, entry, uptime)).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        report.events += new.iter().filter(|new| **new).count();
        report.known += new.iter().filter(|new| !**new).count();
    }
    let forgotten = forgotten(copy, issuers, store, now);
    store.writer.run(move |db| forgotten.iter().try_for_each(|row| remember(db, row))).await?;
    let sessions = copy.session_rows(now);
    report.sessions = sessions.len();
    store.save_sessions(sessions, Vec::new()).await?;
    if let Some(terms) = copy.idle_terms(now).filter(|_| is_new) {
        store.save_idle_terms(terms).await?;
    }
    store.add_usage(copy.missing_usage(&store.usage(None).await?)).await?;
    let imported = mark(store, IMPORTED).await?;
    store
        .save_key_set(IMPORTED, imported.as_deref().unwrap_or(&copy.header.identity).as_bytes(), now)
        .await?;
    let is_of_same = imported.as_deref() == Some(&copy.header.identity);
    report.kept_directories = add_directories(copy, store, is_of_same).await?;
    let youngest = copy.youngest_other(imported.as_deref(), mark(store, YOUNGEST).await?.as_deref());
    if let Some(youngest) = youngest {
        store.save_key_set(YOUNGEST, youngest.as_millis().to_string().as_bytes(), now).await?;
    }
    let beginning = copy.beginning(store.not_before(), imported.as_deref(), youngest);
    store.writer.run(move |db| rows::set_not_before(db, beginning)).await?;
    report.not_before = beginning;
    report.keeps_beginning = copy.header.in_use;
    Ok(report)
}

/// Appends an entry to the log; returns whether it is new.
fn adopt(db: &Connection, mut entry: LogEntry, uptime: i64) -> rusqlite::Result<bool> {
    entry.sequence = entry.sequence.max(rows::last_sequence(db)? + 1);
    let adopted = mirror::adopt(db, &entry, uptime, &mut mirror::Lost::new())?;
    Ok(adopted != mirror::Adopted::Known)
}

/// Returns what deleted events may have ended, as rows: issuer, retention, and until when by the store's running time.
fn forgotten(copy: &StateCopy, issuers: &[&str], store: &Store, now: Now) -> Vec<(Arc<str>, i64, i64)> {
    let mut found = Vec::new();
    for line in &copy.forgotten {
        let until = store.uptime().at(now.monotonic.minus(Duration::from_millis(line.ago)));
        let retention = i64::try_from(line.retention).unwrap_or(i64::MAX);
        let of: Vec<&str> = line.issuer.as_deref().map_or_else(|| issuers.to_vec(), |issuer| vec![issuer]);
        found.extend(of.into_iter().map(|issuer| (issuer.into(), retention, until)));
    }
    found
}

fn remember(db: &Connection, (issuer, retention, until): &(Arc<str>, i64, i64)) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO forgotten (issuer, retention, until_uptime) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE
         SET until_uptime = max(until_uptime, excluded.until_uptime)",
    )?
    .execute(params![issuer, retention, until])?;
    Ok(())
}

/// Returns what an earlier import recorded under this name.
async fn mark(store: &Store, name: (&str, &str)) -> Result<Option<String>, StoreError> {
    Ok(store.key_set(name).await?.and_then(|(text, ..)| String::from_utf8(text).ok()))
}

/// Adds the copied directories, and returns the names of those that stay unchanged. `is_of_same`: the first import came
/// from the same store as this copy.
async fn add_directories(
    copy: &StateCopy,
    store: &Store,
    is_of_same: bool,
) -> Result<Vec<String>, StoreError> {
    let mut kept = Vec::new();
    for directory in &copy.directories {
        let place = format!("{}/{}", IMPORTED.0, directory.name);
        let place = (place.as_str(), IMPORTED.1);
        let noted = mark(store, place).await?.filter(|_| is_of_same).and_then(|text| text.parse().ok());
        let held = store.directory_news(&directory.name, &DirectoryRevision::default()).await?;
        match directory.onto(held.as_ref(), noted) {
            DirectoryImport::Same => {}
            DirectoryImport::Kept => kept.push(directory.name.clone()),
            DirectoryImport::Change(from, entries) => {
                let made =
                    store.change_directory(&directory.name, &from, entries, directory.revision).await?;
                let Some(DirectoryRevision { number, .. }) = made else {
                    kept.push(directory.name.clone());
                    continue;
                };
                store.save_key_set(place, number.to_string().as_bytes(), Now::read()).await?;
            }
        }
    }
    Ok(kept)
}
