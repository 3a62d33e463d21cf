//! Copies a shared store to a file and back: acts as a replica that reads the log or appends to it,
//! but does not follow it.

use std::sync::Arc;
use std::time::Duration;

use redis::cmd;
use tokio::time::sleep;

use super::entry::LogEntry;
use super::fault::RedisFault;
use super::keys::VERSION;
use super::log::{Beat, EntryPosition};
use super::supervise::random_id;
use super::{RESPONSE_TIMEOUT, RedisTerms, Settings, SharedStore, lock, prepare, removed};
use crate::metrics::Metrics;
use crate::state::directory::DirectoryRevision;
use crate::state::record::EventKind;
use crate::state::transfer::{
    DirectoryImport, DirectoryLine, ForgottenLine, ImportReport, StateCopy, StateSource,
};
use crate::state::{OpenError, StoreError, mirror};
use crate::time::{Monotonic, Now, Timestamp};

/// The version of a store while an import creates it. Gates refuse it.
pub(super) const UNFINISHED: &str = "importing";
/// Every running gate writes more often than this.
const QUIET: Duration = Duration::from_secs(3);
/// How many entries one call appends.
const BATCH: usize = 500;
/// The origin's field with the identity of the store that was imported first. Fields with this prefix contain the revisions
/// of directories after the last import.
const IMPORTED: &str = "imported";
/// The origin's field with the latest beginning of the other imported stores, in milliseconds.
const YOUNGEST: &str = "imported_youngest";

fn refused(why: impl std::fmt::Display) -> OpenError {
    OpenError::Refused(why.to_string())
}

/// Reads the whole store, and the directories with these names. Last uses are not included: the server keeps
/// them apart from everything else that makes up a session.
pub(in crate::state) async fn read(
    settings: &Settings,
    terms: RedisTerms,
    directories: &[&str],
) -> Result<StateSource, OpenError> {
    let metrics = Metrics::new().map_err(refused)?;
    let (fleet, _changes) = prepare(settings.clone(), terms, metrics)?;
    fleet.open().await.map_err(refused)?;
    let beat = fleet.beat(RESPONSE_TIMEOUT).await.map_err(refused)?;
    if beat.id.is_empty() {
        return Err(refused("there is no store yet under state.key_prefix"));
    }
    fleet.require_version(&beat).map_err(refused)?;
    // Checked before anything else is read: a gate that has ended by then has written everything it knew.
    let in_use = fleet.is_in_use(&beat).await.map_err(refused)?;
    let beat = fleet.beat(RESPONSE_TIMEOUT).await.map_err(refused)?;
    fleet.read_log(&beat).await.map_err(refused)?;
    let now = Monotonic::now();
    let removed = removed::parse(&beat.dropped, beat.ticks, now);
    let span = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let forgotten = removed.iter().map(|removed| ForgottenLine {
        issuer: None,
        retention: span(removed.retention),
        ago: span(now.since(removed.until)),
    });
    let mut found = Vec::new();
    for name in directories {
        found.extend(fleet.whole_directory(name).await.map_err(refused)?);
    }
    Ok(StateSource {
        database: Arc::clone(&fleet.mirror),
        uptime: fleet.uptime,
        store: "redis",
        identity: beat.id.clone(),
        not_before: beat.created_at,
        sequence: beat.last,
        in_use,
        idle: fleet.new_terms(&beat),
        forgotten: forgotten.collect(),
        usage: fleet.usage(None).await.map_err(refused)?,
        directories: found,
    })
}

/// Adds a copy to the store, which is created if it does not exist.
pub(in crate::state) async fn write(
    settings: &Settings,
    terms: RedisTerms,
    copy: &StateCopy,
) -> Result<ImportReport, OpenError> {
    let metrics = Metrics::new().map_err(refused)?;
    let (fleet, _changes) = prepare(settings.clone(), terms, metrics)?;
    fleet.open().await.map_err(refused)?;
    let mut beat = fleet.beat(RESPONSE_TIMEOUT).await.map_err(refused)?;
    let is_new = beat.id.is_empty() || beat.version == UNFINISHED;
    if beat.id.is_empty() {
        fleet.create_log_as(&random_id(), UNFINISHED).await.map_err(refused)?;
        beat = fleet.beat(RESPONSE_TIMEOUT).await.map_err(refused)?;
    }
    if !is_new {
        fleet.require_version(&beat).map_err(refused)?;
    }
    fleet.read_log(&beat).await.map_err(refused)?;
    let mut report = fleet.add_events(copy).await.map_err(refused)?;
    report.sessions = fleet.add_sessions(copy, beat.stamp.is_none()).await.map_err(refused)?;
    let imported = fleet.imported_first(copy).await.map_err(refused)?;
    fleet.add_usage_of(copy).await.map_err(refused)?;
    let is_of_same = imported.as_deref() == Some(&copy.header.identity);
    report.kept_directories = fleet.add_directories(copy, is_of_same).await.map_err(refused)?;
    let known = beat.created_at;
    report.not_before = fleet.set_beginning(copy, known, imported.as_deref()).await.map_err(refused)?;
    report.keeps_beginning = copy.header.in_use;
    if is_new {
        fleet.set_origin("version", VERSION).await.map_err(refused)?;
    }
    Ok(report)
}

impl SharedStore {
    /// Whether a gate is running: each writes about once a second to prove that the server accepts writes.
    async fn is_in_use(&self, beat: &Beat) -> Result<bool, RedisFault> {
        if beat.stamp.is_none_or(|stamp| beat.clock.since(stamp) > QUIET) {
            return Ok(false);
        }
        sleep(QUIET).await;
        Ok(self.beat(RESPONSE_TIMEOUT).await?.stamp != beat.stamp)
    }

    /// Reads the whole log into the local copy.
    async fn read_log(&self, beat: &Beat) -> Result<(), RedisFault> {
        self.set_position(EntryPosition { id: beat.id.clone(), ..EntryPosition::default() });
        let lane = self.log_lane()?;
        loop {
            let page = self.read(&lane, self.position().last).await?;
            let Some(last) = page.last().map(|entry| entry.sequence) else { return Ok(()) };
            self.adopt(page).await?;
            self.advance(last);
        }
    }

    /// Appends the entries that the log does not have: events first, then those that undo events.
    async fn add_events(&self, copy: &StateCopy) -> Result<ImportReport, RedisFault> {
        let mut report = ImportReport::default();
        let is_undoing = |entry: &&LogEntry| entry.event.kind == EventKind::Undone;
        let (undoing, events): (Vec<&LogEntry>, Vec<&LogEntry>) = copy.entries.iter().partition(is_undoing);
        for group in [events, undoing] {
            for batch in group.chunks(BATCH) {
                let asked: Vec<LogEntry> = batch.iter().map(|entry| (*entry).clone()).collect();
                let (known, count) = (asked.clone(), asked.len());
                let find = move |db: &rusqlite::Connection| {
                    known
                        .iter()
                        .map(|entry| mirror::is_known(db, entry))
                        .collect::<rusqlite::Result<Vec<_>>>()
                };
                let known = self.mirror.run(find).await?;
                let missing =
                    asked.into_iter().zip(known).filter_map(|(entry, known)| (!known).then_some(entry));
                let missing: Vec<LogEntry> = missing.collect();
                report.events += missing.len();
                report.known += count - missing.len();
                if !missing.is_empty() {
                    self.put(missing).await?;
                }
            }
        }
        Ok(report)
    }

    /// Adds last uses and the other data of idle clocks; the timeouts last in force only if no gate has stored any.
    async fn add_sessions(&self, copy: &StateCopy, is_unused: bool) -> Result<usize, StoreError> {
        let now = Now::read();
        let rows = copy.session_rows(now);
        let early = rows.iter().filter(|row| row.first_used_at < row.issued_at);
        let early = early.map(|row| (row.token, row.first_used_at)).collect();
        let count = rows.len();
        self.save_sessions(rows).await?;
        self.save_first_uses(early).await?;
        if let Some(terms) = copy.idle_terms(now).filter(|_| is_unused) {
            self.save_idle_terms(&terms).await?;
        }
        Ok(count)
    }

    async fn add_usage_of(&self, copy: &StateCopy) -> Result<(), StoreError> {
        let missing = copy.missing_usage(&self.usage(None).await?);
        for rows in missing.chunks(BATCH) {
            self.add_usage(rows.to_vec()).await?;
        }
        Ok(())
    }

    /// Adds the copied directories, and returns the names of those that stay unchanged. `is_of_same`: the first
    /// import came from the same store as this copy.
    async fn add_directories(&self, copy: &StateCopy, is_of_same: bool) -> Result<Vec<String>, StoreError> {
        let mut kept = Vec::new();
        for directory in &copy.directories {
            let field = format!("{IMPORTED}:{}", directory.name);
            let noted = self.origin(&field).await?.filter(|_| is_of_same).and_then(|text| text.parse().ok());
            let held = self.directory_news(&directory.name, &DirectoryRevision::default()).await?;
            match directory.onto(held.as_ref(), noted) {
                DirectoryImport::Same => {}
                DirectoryImport::Kept => kept.push(directory.name.clone()),
                DirectoryImport::Change(from, entries) => {
                    let made =
                        self.change_directory(&directory.name, &from, &entries, directory.revision).await?;
                    // A gate may have changed it in the meantime.
                    let Some(DirectoryRevision { number, .. }) = made else {
                        kept.push(directory.name.clone());
                        continue;
                    };
                    self.set_origin(&field, &number.to_string()).await?;
                }
            }
        }
        Ok(kept)
    }

    /// Returns the identity of the store that was imported first; if there was none, records that of this copy.
    async fn imported_first(&self, copy: &StateCopy) -> Result<Option<String>, RedisFault> {
        let imported = self.origin(IMPORTED).await?;
        if imported.is_none() {
            // Written before the beginning moves: after a crash between the two, another source would count as the first.
            self.set_origin(IMPORTED, &copy.header.identity).await?;
        }
        Ok(imported)
    }

    async fn origin(&self, field: &str) -> Result<Option<String>, RedisFault> {
        let mut get = cmd("HGET");
        get.arg(&self.keys.origin).arg(field);
        self.log_lane()?.ask(&get, RESPONSE_TIMEOUT).await
    }

    /// Sets since when the log knows everything, and what was removed from the copied log.
    async fn set_beginning(
        &self,
        copy: &StateCopy,
        known: Timestamp,
        imported: Option<&str>,
    ) -> Result<Timestamp, RedisFault> {
        let youngest = copy.youngest_other(imported, self.origin(YOUNGEST).await?.as_deref());
        if let Some(youngest) = youngest {
            self.set_origin(YOUNGEST, &youngest.as_millis().to_string()).await?;
        }
        let beginning = copy.beginning(known, imported, youngest);
        let mut retentions: Vec<String> =
            copy.forgotten.iter().map(|line| format!("{}:0", line.retention)).collect();
        retentions.dedup();
        *lock(&self.dropped) = retentions.join(",");
        let position = self.position();
        if beginning > known {
            self.raise(&position.id, beginning).await?;
        }
        let said = known.max(beginning);
        let position = EntryPosition { created_at: beginning, said, ..position };
        if self.lower(&position, &[]).await? {
            return Ok(beginning);
        }
        Err(RedisFault::Moved(
            "a gate found that events are missing from the shared log; run the import again".to_owned(),
        ))
    }

    async fn set_origin(&self, field: &str, value: &str) -> Result<(), RedisFault> {
        let mut set = cmd("HSET");
        set.arg(&self.keys.origin).arg(field).arg(value);
        self.log_lane()?.ask::<i64>(&set, RESPONSE_TIMEOUT).await.map(drop)
    }

    async fn whole_directory(&self, name: &str) -> Result<Option<DirectoryLine>, StoreError> {
        let news = self.directory_news(name, &DirectoryRevision::default()).await?;
        Ok(news.map(|news| DirectoryLine {
            name: name.to_owned(),
            revision: news.revision.number,
            entries: news
                .entries
                .into_iter()
                .filter_map(|entry| Some((entry.key.into(), entry.body?.into())))
                .collect(),
        }))
    }
}
