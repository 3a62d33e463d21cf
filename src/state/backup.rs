//! Makes a consistent copy of the database file while a gate may be using it.
//!
//! A plain file copy would miss whatever is still in the write-ahead log; for a gate that has just started,
//! that is nearly everything.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::schema::{self, SchemaProblem, companion};
use super::{OpenError, rows};

/// Copies the database at `path` to the file `to`, which must not exist yet, and returns the last sequence of
/// the copy. Does not block the gate that uses the database; blocks the caller.
pub(super) fn copy(path: &Path, to: &Path) -> Result<u64, OpenError> {
    let source = source(path).map_err(|problem| problem.at(path))?;
    let failed = |error: &dyn std::fmt::Display| OpenError::Io(to.to_owned(), error.to_string());
    // Reserves the name first, so that no existing file is overwritten. The finished copy is renamed onto it,
    // so an incomplete one never has that name.
    let reserved = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    drop(reserved.map_err(|error| failed(&error))?);
    let unfinished = companion(to, ".unfinished");
    let copied = copy_into(&source, &unfinished).map_err(|error| failed(&error)).and_then(|last| {
        std::fs::rename(&unfinished, to).and_then(|()| sync_folder(to)).map_err(|error| failed(&error))?;
        Ok(last)
    });
    if copied.is_err() {
        drop((std::fs::remove_file(&unfinished), std::fs::remove_file(to)));
    }
    copied
}

/// Opens the database to copy. Only reads it, but needs write access because SQLite creates the `-wal` and
/// `-shm` files if they are missing.
fn source(path: &Path) -> Result<Connection, SchemaProblem> {
    if let Err(error) = std::fs::metadata(path) {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => SchemaProblem::Missing,
            _ => SchemaProblem::Unusable(error.to_string()),
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    schema::verify(&connection)?;
    if schema::is_empty(&connection)? { Err(SchemaProblem::Missing) } else { Ok(connection) }
}

fn copy_into(source: &Connection, to: &Path) -> Result<u64, Box<dyn std::error::Error>> {
    // An interrupted copy may have left this file behind. It is created again because SQLite writes only to an
    // empty file, and because nobody else may read it, whatever the mode of the old one.
    drop(std::fs::remove_file(to));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    source.execute("VACUUM INTO ?1", [to.to_str().ok_or("its name is not UTF-8")?])?;
    file.sync_all()?;
    let copy = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(rows::last_sequence(&copy)?)
}

/// Synchronises the folder of `path`, so that a new name in it survives a power loss.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::state::Store;
    use crate::state::record::{Event, EventSource};
    use crate::time::{Now, Timestamp};

    #[tokio::test]
    async fn a_copy_has_what_the_open_store_has_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("gate.db"), folder.path().join("copy.db"));
        let missing = Store::back_up(&path, &to).unwrap_err();
        assert!(matches!(&missing, OpenError::Missing(at) if *at == path), "{missing:?}");
        let below = Store::back_up(&folder.path().join("none/gate.db"), &to).unwrap_err();
        assert!(matches!(below, OpenError::Missing(_)), "{below:?}");
        std::fs::write(&path, "").unwrap();
        let inside = Store::back_up(&path.join("inside"), &to).unwrap_err();
        assert!(matches!(inside, OpenError::Io(..)), "not the same as no store: {inside:?}");
        assert!(matches!(Store::back_up(&path, &to), Err(OpenError::Missing(_))), "nothing is in it");
        assert!(!to.exists());

        let now = Now::at_millis(1_000);
        let store = Store::open(&path, now).unwrap();
        let event =
            |at| Event::issuer(&"https://a/".into(), Timestamp::from_secs(at), Timestamp::from_secs(99));
        store.append((1..=3).map(event).collect(), EventSource::Admin, now).await.unwrap();
        // The file that an interrupted copy leaves behind.
        let unfinished = companion(&to, ".unfinished");
        std::fs::write(&unfinished, "half of it").unwrap();
        assert_eq!(Store::back_up(&path, &to), Ok(3));
        assert!(!unfinished.exists());
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        let before = std::fs::read(&to).unwrap();
        let again = Store::back_up(&path, &to).unwrap_err();
        assert!(matches!(&again, OpenError::Io(at, _) if *at == to), "{again:?}");
        assert_eq!(std::fs::read(&to).unwrap(), before, "not changed");
        let copy = Store::open_read_only(&to).unwrap().unwrap();
        assert_eq!(copy.events(0, 9).await, store.events(0, 9).await);
        assert_eq!(copy.log(), store.log());
    }

    #[test]
    fn a_copy_may_go_into_the_folder_that_the_command_runs_in() {
        assert!(sync_folder(Path::new("copy.db")).is_ok());
        assert!(sync_folder(Path::new("no such folder/copy.db")).is_err());
    }
}
