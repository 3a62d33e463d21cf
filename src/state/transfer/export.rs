//! Writes the state of a store to a file, page by page, so that a gate that uses the store is never delayed.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::{
    DirectoryLine, FORMAT, ForgottenLine, IdleLine, SessionLine, TransferHeader, TransferLine, UsageLine,
    VERSION, millis,
};
use crate::state::record::{IdleTerms, PerIssuer, UsageRow};
use crate::state::uptime::Uptime;
use crate::state::writer::StoreWriter;
use crate::state::{
    CHUNK, OpenError, Store, StoreError, directory, mirror, redis, rows, schema, session_rows,
};
use crate::time::{Now, Timestamp};

/// A store to copy: events and sessions in a database, everything else in memory.
pub(in crate::state) struct StateSource {
    pub(in crate::state) database: Arc<StoreWriter>,
    pub(in crate::state) uptime: Uptime,
    pub(in crate::state) store: &'static str,
    pub(in crate::state) identity: String,
    pub(in crate::state) not_before: Timestamp,
    pub(in crate::state) sequence: u64,
    pub(in crate::state) in_use: bool,
    pub(in crate::state) idle: Option<PerIssuer<IdleTerms>>,
    pub(in crate::state) forgotten: Vec<ForgottenLine>,
    pub(in crate::state) usage: Vec<UsageRow>,
    pub(in crate::state) directories: Vec<DirectoryLine>,
}

/// The store to export.
#[derive(Debug)]
pub enum ExportedStore<'s> {
    /// The file of an embedded store.
    Embedded(&'s Path),
    /// A shared store, its terms, and the names of the directories that it may contain.
    Redis(&'s redis::Settings, redis::RedisTerms, Vec<&'s str>),
}

/// Writes a copy of the store and returns its header.
///
/// # Errors
/// When the store does not exist or cannot be read, or the file cannot be written.
pub async fn export(from: ExportedStore<'_>, out: &mut dyn Write) -> Result<TransferHeader, OpenError> {
    let source = match from {
        ExportedStore::Embedded(path) => embedded(path).await?,
        ExportedStore::Redis(settings, terms, directories) => {
            redis::read(settings, terms, &directories).await?
        }
    };
    source.write(out).await.map_err(|error| OpenError::Refused(error.to_string()))
}

async fn embedded(path: &Path) -> Result<StateSource, OpenError> {
    // Checked before anything is read: a gate that has ended by then has written everything it knew.
    let in_use = schema::is_in_use(path);
    let store = Store::open_read_only(path)?.ok_or_else(|| OpenError::Missing(path.to_owned()))?;
    let failed = |error: StoreError| OpenError::Io(path.to_owned(), error.to_string());
    let now = Now::read();
    let forgotten = store.forgotten().await.map_err(failed)?;
    let forgotten = forgotten.iter().map(|forgotten| ForgottenLine {
        issuer: Some(forgotten.issuer.to_string()),
        retention: millis(forgotten.retention),
        ago: millis(now.monotonic.since(forgotten.until)),
    });
    let sequence = store.writer.read(rows::last_sequence).await.map_err(failed)?;
    Ok(StateSource {
        database: Arc::clone(&store.writer),
        uptime: store.uptime,
        store: "embedded",
        identity: store.identity.to_string(),
        not_before: store.not_before,
        sequence,
        in_use,
        idle: store.idle_terms().await.map_err(failed)?,
        forgotten: forgotten.collect(),
        usage: store.usage(None).await.map_err(failed)?,
        directories: store.writer.read(directory::all).await.map_err(failed)?,
    })
}

/// Writes the lines of a file and counts them.
struct Lines<'o> {
    out: &'o mut dyn Write,
    count: usize,
}

impl Lines<'_> {
    fn put(&mut self, line: &TransferLine) -> io::Result<()> {
        self.count += 1;
        let text = serde_json::to_string(line)?;
        writeln!(self.out, "{text}")
    }
}

impl StateSource {
    async fn write(self, out: &mut dyn Write) -> io::Result<TransferHeader> {
        let now = Now::read();
        let header = TransferHeader {
            format: FORMAT.to_owned(),
            version: VERSION,
            product: env!("CARGO_PKG_VERSION").to_owned(),
            exported_at: now.wall.as_millis(),
            store: self.store.to_owned(),
            identity: self.identity.clone(),
            not_before: self.not_before.as_millis(),
            sequence: self.sequence,
            in_use: self.in_use,
        };
        let mut lines = Lines { out, count: 0 };
        lines.put(&TransferLine::Header(header.clone()))?;
        self.write_events(&mut lines).await?;
        self.write_sessions(&mut lines, now).await?;
        if let Some(idle) = &self.idle {
            lines.put(&TransferLine::Idle(IdleLine::of(None, idle.common(), now)))?;
            for (issuer, terms) in idle.own() {
                lines.put(&TransferLine::Idle(IdleLine::of(Some(issuer), terms, now)))?;
            }
        }
        for forgotten in self.forgotten {
            lines.put(&TransferLine::Forgotten(forgotten))?;
        }
        for UsageRow { client, route, status, count, last_used_at } in self.usage {
            let last_used_at = last_used_at.as_millis();
            let (client, route) = (client.into(), route.into());
            lines.put(&TransferLine::Usage(UsageLine { client, route, status, count, last_used_at }))?;
        }
        for directory in self.directories {
            lines.put(&TransferLine::Directory(directory))?;
        }
        let count = lines.count;
        lines.put(&TransferLine::End { lines: count })?;
        lines.out.flush()?;
        Ok(header)
    }

    async fn write_events(&self, lines: &mut Lines<'_>) -> io::Result<()> {
        let mut after = 0;
        loop {
            let read = self.database.read(move |db| entries(db, after)).await;
            let (page, next) = read.map_err(io::Error::other)?;
            for entry in &page {
                let (sequence, entry) = (entry.sequence, entry.wire());
                lines.put(&TransferLine::Event { sequence, entry })?;
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    async fn write_sessions(&self, lines: &mut Lines<'_>, now: Now) -> io::Result<()> {
        let (uptime, mut after) = (self.uptime, None);
        loop {
            let read = self.database.read(move |db| session_rows::sessions(db, after, CHUNK, uptime)).await;
            let page = read.map_err(io::Error::other)?;
            for row in &page {
                lines.put(&TransferLine::Session(SessionLine::of(row, now)))?;
            }
            match page.last() {
                Some(last) => after = Some(last.token),
                None => return Ok(()),
            }
        }
    }
}

type EntryPage = (Vec<redis::entry::LogEntry>, Option<u64>);

/// Returns the entries after a place, each with the identity of the event it undoes, and the place of the last event that
/// was read; `None` after the end.
fn entries(db: &Connection, after: u64) -> rusqlite::Result<EntryPage> {
    let stored = rows::events(db, after, CHUNK)?;
    let next = stored.last().map(|last| last.sequence);
    let found = stored.iter().map(|stored| mirror::entry(db, stored.sequence));
    let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((found.into_iter().flatten().collect(), next))
}
