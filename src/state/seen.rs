//! The side file of a store: it notes the identity of the log beside it, and how far that log had grown.
//!
//! A restored copy of a database does not show what came after it; neither does one that was copied without its
//! write-ahead log, nor a new database in place of a deleted one. The side file reveals all three. It is written after
//! each commit but not synchronised: after a power loss it may lag behind the database, but is never ahead of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use super::rows;

/// What the side file says about the database beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing is missing, as far as is known.
    Continuous,
    /// The database is older than one that was in use here: the events after `known` up to `seen` are missing.
    Older {
        /// The last sequence of the database.
        known: u64,
        /// The last sequence in the side file.
        seen: u64,
    },
    /// The side file is empty although the database is not new: it was copied or moved here, perhaps without its log.
    Unseen {
        /// The last sequence of the database.
        known: u64,
    },
    /// Another database was in use here, up to this sequence.
    Replaced {
        /// The last sequence in the side file.
        seen: u64,
    },
}

/// The side file; without a file, only the last sequence.
#[derive(Debug, Default)]
pub(super) struct SideFile {
    file: Option<File>,
    identity: String,
    /// Sequences up to this one were assigned by a later state of the log; the first commit skips them. Not
    /// skipped earlier, so that a file that turns out to be damaged stays unchanged.
    skip: Option<u64>,
    /// The last sequence of the database, shared with its readers.
    last: Arc<AtomicU64>,
}

impl SideFile {
    /// Opens the file, creating it if it does not exist. If that fails, the store works without it.
    pub(super) fn open(path: &Path) -> Self {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot use the side file of the store; a restored copy would go undetected");
        });
        Self { file: file.ok(), ..Self::default() }
    }

    /// Compares the database with the side file, which from then on notes its sequences. The next sequence is above
    /// all that were noted for this log, so that none is assigned twice. `is_new`: the database has just been created.
    pub(super) fn compare(
        &mut self,
        db: &Connection,
        identity: &str,
        is_new: bool,
    ) -> rusqlite::Result<Past> {
        let known = rows::last_sequence(db)?;
        let noted = self.read();
        identity.clone_into(&mut self.identity);
        let past = match noted {
            Some((log, seen)) if log != identity => Past::Replaced { seen },
            Some((_, seen)) if seen > known => Past::Older { known, seen },
            None if self.file.is_some() && !is_new => Past::Unseen { known },
            Some(_) | None => Past::Continuous,
        };
        let last = match past {
            Past::Older { seen, .. } => {
                self.skip = Some(seen);
                seen
            }
            Past::Replaced { .. } | Past::Unseen { .. } | Past::Continuous => known,
        };
        self.write(last);
        Ok(past)
    }

    /// Runs in each commit, so that no sequence is assigned twice.
    pub(super) fn skip(&self, db: &Connection) -> rusqlite::Result<()> {
        self.skip.map_or(Ok(()), |seen| rows::skip_to(db, seen))
    }

    /// Notes the last sequence after a commit.
    pub(super) fn note(&mut self, db: &Connection) {
        let Ok(last) = rows::last_sequence(db) else { return };
        if self.skip.take_if(|seen| last >= *seen).is_none() && self.skip.is_some() {
            return;
        }
        if last != self.last.load(Ordering::Relaxed) {
            self.write(last);
        }
    }

    /// The last sequence of the database, updated after each commit.
    pub(super) fn last(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.last)
    }

    fn read(&self) -> Option<(String, u64)> {
        let mut text = [0; 128];
        let read = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        let (identity, last) = std::str::from_utf8(text.get(..read)?).ok()?.trim_end().split_once(' ')?;
        Some((identity.to_owned(), last.parse().ok()?))
    }

    fn write(&mut self, last: u64) {
        self.last.store(last, Ordering::Relaxed);
        let line = format!("{} {last:020}\n", self.identity);
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.write_all_at(line.as_bytes(), 0)) {
            tracing::warn!(%error, "cannot write the side file of the store; a restored copy would go undetected");
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::schema;
    use crate::time::Now;

    #[test]
    fn notices_what_the_database_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db.seen");
        let database = schema::in_memory(Now::at_millis(1_000)).unwrap();
        let unseen = Past::Unseen { known: 0 };
        for (noted, past, next) in [
            ("", unseen, 0),
            ("no such line", unseen, 0),
            ("a 00000000000000000000\n", Past::Continuous, 0),
            ("b 00000000000000000007\n", Past::Replaced { seen: 7 }, 0),
            ("a 00000000000000000007\n", Past::Older { known: 0, seen: 7 }, 7),
            ("a 00000000000000000007\n", Past::Continuous, 7),
            ("a 00000000000000000003\n", Past::Continuous, 7),
        ] {
            std::fs::write(&path, noted).unwrap();
            let mut seen = SideFile::open(&path);
            assert_eq!(seen.compare(&database.connection, "a", false), Ok(past), "{noted}");
            seen.skip(&database.connection).unwrap();
            seen.note(&database.connection);
            assert_eq!(seen.skip, None, "{noted}");
            assert_eq!(rows::last_sequence(&database.connection), Ok(next), "{noted}");
            let written = std::fs::read_to_string(&path).unwrap();
            assert_eq!(written.trim_end(), format!("a {next:020}"), "{noted}");
        }
        std::fs::write(&path, "").unwrap();
        let new = SideFile::open(&path).compare(&database.connection, "a", true);
        assert_eq!(new, Ok(Past::Continuous), "made just now");
    }

    #[test]
    fn each_commit_is_noted_unless_sequences_that_were_given_elsewhere_are_still_to_be_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db.seen");
        let database = schema::in_memory(Now::at_millis(1_000)).unwrap();
        let noted = || std::fs::read_to_string(&path).unwrap().trim_end().to_owned();

        let mut seen = SideFile::open(&path);
        assert_eq!(seen.compare(&database.connection, "a", true), Ok(Past::Continuous));
        let last = seen.last();
        for sequence in [3, 4] {
            rows::skip_to(&database.connection, sequence).unwrap();
            seen.note(&database.connection);
            assert_eq!(noted(), format!("a {sequence:020}"));
            assert_eq!(last.load(Ordering::Relaxed), sequence, "for all who ask");
        }

        std::fs::write(&path, "a 00000000000000000009\n").unwrap();
        let mut seen = SideFile::open(&path);
        assert_eq!(seen.compare(&database.connection, "a", false), Ok(Past::Older { known: 4, seen: 9 }));
        seen.note(&database.connection);
        assert_eq!(noted(), "a 00000000000000000009", "nothing was committed yet");
        assert_eq!(seen.last().load(Ordering::Relaxed), 9);
    }
}
