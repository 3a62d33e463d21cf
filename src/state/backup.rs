//! A consistent copy of the file, made while a gate may be using it.
//!
//! Copying the file itself would leave out what is still in its write-ahead log: a gate that was just started has nearly
//! everything there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::schema::{self, SchemaProblem, companion};
use super::{OpenError, rows};

/// Copies the database at `path` to the file `to`, which must not exist yet, and answers the last sequence of the copy.
/// Nobody waits for it. Blocks.
pub(super) fn copy(path: &Path, to: &Path) -> Result<u64, OpenError> {
    let source = source(path).map_err(|problem| problem.at(path))?;
    let failed = |error: &dyn std::fmt::Display| OpenError::Io(to.to_owned(), error.to_string());
    // Takes the name, so that nothing that is there is overwritten; and what is not whole never has it.
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

/// Opens what is copied. It is read only, but SQLite needs the files beside it, which it makes where they are missing.
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
    // One that was interrupted may have left it behind; SQLite writes only to a file that is empty.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    source.execute("VACUUM INTO ?1", [to.to_str().ok_or("its name is not UTF-8")?])?;
    file.sync_all()?;
    let copy = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(rows::last_sequence(&copy)?)
}

/// The new name survives a power loss, too.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
