//! Opens the database: exclusively, and only if it is intact, a Portcullis database, and of a known version.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::OpenError;
use super::migrations::MIGRATIONS;
use super::seen::{Past, SideFile};
use super::uptime::Uptime;
use crate::time::{Clock, Now, Timestamp};

/// Identifies the file as a Portcullis database ("PCLS"), so that another program's database is not used by mistake.
const APPLICATION_ID: i64 = 0x5043_4c53;

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) created_at: Timestamp,
    /// Nothing is known of tokens issued before this moment.
    pub(super) not_before: Timestamp,
    /// Distinguishes this log from any other.
    pub(super) identity: String,
    /// The running time of the file, which continues from what it had counted when it was opened.
    pub(super) uptime: Uptime,
    /// The clock that counts running time.
    pub(super) clock: Clock,
    /// Whether writing is impossible.
    pub(super) read_only: bool,
    /// The side file, which notes the last sequence outside the database.
    pub(super) seen: SideFile,
    /// What the side file said when the database was opened.
    pub(super) past: Past,
    /// The lock, held as long as the database is open.
    _lock: Option<File>,
}

/// Whether a database may already exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedDatabase {
    /// It is created if it does not exist.
    Any,
    /// It must not exist.
    New,
}

/// Opens the file at `path`, creating it if it does not exist.
pub(super) fn open(path: &Path, wanted: WantedDatabase, now: Now) -> Result<Database, OpenError> {
    let lock = lock(path)?;
    // The file contains personal data, so only its owner may read it; SQLite gives its companion files the same mode.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    drop(file.map_err(|error| OpenError::Io(path.to_owned(), error.to_string()))?);
    // A write-ahead log that was left behind means that the last process did not close the file: check its integrity.
    let left_open = std::fs::metadata(companion(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let prepare = || -> Result<Database, SchemaProblem> {
        let connection = Connection::open_with_flags(path, flags)?;
        // A refused file stays as it is: closing it must not checkpoint its log.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        verify(&connection)?;
        if wanted == WantedDatabase::New && !is_empty(&connection)? {
            return Err(SchemaProblem::Exists);
        }
        connection.busy_timeout(Duration::from_secs(5))?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(SchemaProblem::Unusable(format!(
                "its file system does not support a write-ahead log (mode {mode})"
            )));
        }
        // An acknowledged event survives power loss: the log is synchronised at each commit.
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        if left_open {
            inspect(&connection)?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        migrate(connection, now, Some(path), Some(lock))
    };
    prepare().map_err(|problem| problem.at(path))
}

/// The characters that need no escape in the path of a URI.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// Opens the file for reading while a gate may have it open. Takes no lock, and changes and creates nothing;
/// `None` if the file does not exist or is empty.
pub(super) fn open_read_only(path: &Path) -> Result<Option<Database>, OpenError> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => {}
        Ok(_empty) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::Io(path.to_owned(), error.to_string())),
    }
    // Without a write-ahead log no process has the file open; SQLite would create one just to read,
    // so open it as immutable.
    let unused = !companion(path, "-wal").exists();
    let immutable = if unused { "?immutable=1" } else { "" };
    let uri = format!("file:{}{immutable}", percent_encode(path.as_os_str().as_bytes(), PLAIN));
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let prepare = || -> Result<Option<Database>, SchemaProblem> {
        let connection = Connection::open_with_flags(&uri, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        verify(&connection)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => Ok(None),
            version if version < MIGRATIONS.len() as i64 => Err(SchemaProblem::Unusable(
                "it was written by an earlier release; the gate migrates it at the next start".to_owned(),
            )),
            _current => opened(connection, Now::read(), None, (None, false)).map(Some),
        }
    };
    prepare().map_err(|problem| problem.at(path))
}

/// Opens a database in memory, which is lost when it is closed.
pub(super) fn in_memory(now: Now) -> Result<Database, OpenError> {
    let prepare = || migrate(Connection::open_in_memory()?, now, None, None);
    prepare().map_err(|problem: SchemaProblem| problem.at(Path::new(":memory:")))
}

/// How often the lock is tried: a process that is ending, or a child it has just forked, may hold it a moment longer.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock file. SQLite's own locks admit many processes, but two gates on one file would each know
/// only half of the events.
fn lock(path: &Path) -> Result<File, OpenError> {
    let path = companion(path, ".lock");
    let io = |error: io::Error| OpenError::Io(path.clone(), error.to_string());
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(io)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    Err(OpenError::InUse(path))
}

/// Whether a process has the file open for writing.
pub(super) fn is_in_use(path: &Path) -> bool {
    let file = OpenOptions::new().append(true).open(companion(path, ".lock"));
    // Dropping the handle releases the lock.
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// The path of a file beside the database.
pub(super) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Checks, before anything is changed, that the file is a Portcullis database that this release supports.
pub(super) fn verify(connection: &Connection) -> Result<(), SchemaProblem> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if objects == 0 && application == 0 && version == 0 {
        return Ok(());
    }
    if application != APPLICATION_ID {
        return Err(SchemaProblem::Foreign);
    }
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(SchemaProblem::Newer { version, known });
    }
    Ok(())
}

/// Whether no gate has used it yet.
pub(super) fn is_empty(connection: &Connection) -> Result<bool, SchemaProblem> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(version == 0)
}

fn inspect(connection: &Connection) -> Result<(), SchemaProblem> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(SchemaProblem::Corrupt(verdict)) }
}

/// Migrates the tables to the current version, each step atomically.
fn migrate(
    mut connection: Connection,
    now: Now,
    path: Option<&Path>,
    lock: Option<File>,
) -> Result<Database, SchemaProblem> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (index, step) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        if index == 0 {
            transaction.execute("INSERT INTO origin (created_at) VALUES (?1)", [now.wall.as_millis()])?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    let is_new = version == 0;
    if is_new && path.is_some() {
        // A copy of the file without its log is then at least recognisable as this store, instead of an empty one.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    // If the clock was ahead when the store was created, tokens of its first hours would all be rejected. If instead the
    // clock is behind now, the store forgets that it knows nothing of the tokens issued between now and its creation.
    connection.execute("UPDATE origin SET not_before = ?1 WHERE not_before > ?1", [now.wall.as_millis()])?;
    let seen = path.map(|path| SideFile::open(&companion(path, ".seen")));
    opened(connection, now, seen, (lock, is_new))
}

/// Reads the origin of a database. One without a side file is read-only or in memory.
fn opened(
    connection: Connection,
    now: Now,
    seen: Option<SideFile>,
    (lock, is_new): (Option<File>, bool),
) -> Result<Database, SchemaProblem> {
    connection.set_prepared_statement_cache_capacity(32);
    let (created_at, not_before, uptime, identity) =
        connection.query_row("SELECT created_at, not_before, uptime, identity FROM origin", [], |row| {
            let time = |column| row.get(column).map(Timestamp::from_millis);
            Ok((time(0)?, time(1)?, row.get(2)?, row.get::<_, String>(3)?))
        })?;
    let read_only = connection.is_readonly("main")?;
    let mut seen = seen.unwrap_or_default();
    let past = seen.compare(&connection, &identity, is_new)?;
    Ok(Database {
        connection,
        created_at,
        not_before,
        identity,
        clock: Clock::Machine,
        uptime: Uptime::resume(uptime, now.monotonic),
        read_only,
        seen,
        past,
        _lock: lock,
    })
}

/// What can be wrong with a database, before its path is known.
pub(super) enum SchemaProblem {
    Foreign,
    Missing,
    Newer { version: i64, known: i64 },
    Exists,
    Corrupt(String),
    Unusable(String),
}

impl From<rusqlite::Error> for SchemaProblem {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt(error.to_string()),
            _ if matches!(error, rusqlite::Error::QueryReturnedNoRows) => {
                Self::Corrupt("a row is missing".into())
            }
            _ => Self::Unusable(error.to_string()),
        }
    }
}

impl SchemaProblem {
    pub(super) fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Foreign => OpenError::Foreign(path),
            Self::Missing => OpenError::Missing(path),
            Self::Newer { version, known } => OpenError::Newer { path, version, known },
            Self::Exists => OpenError::Exists(path),
            Self::Corrupt(what) => OpenError::Corrupt(path, what),
            Self::Unusable(what) => OpenError::Io(path, what),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;
    use crate::state::Store;

    const NOW: Now = Now::at_millis(5_000);

    #[tokio::test]
    async fn a_file_is_in_use_while_a_process_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        assert!(!is_in_use(&path), "the file does not exist yet");
        let store = Store::open(&path, NOW).unwrap();
        assert!(is_in_use(&path));
        store.close().await;
        drop(store);
        testkit::eventually_async("the file is free", || (!is_in_use(&path)).then_some(())).await;
    }

    #[test]
    fn a_store_is_created_once_and_says_when() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        assert!(matches!(Store::open_read_only(&path), Ok(None)), "there is none yet");
        assert_eq!(Store::create(&path, NOW, false).unwrap(), Past::Continuous);
        let again = Store::create(&path, NOW, true).unwrap_err();
        assert!(matches!(&again, OpenError::Exists(at) if *at == path), "{again:?}");
        let file = Connection::open(&path).unwrap();
        let rows: i64 = file.query_row("SELECT count(*) FROM origin", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
        drop(file);
        let store = Store::open(&path, Now::at_millis(9_000)).unwrap();
        assert_eq!(store.created_at(), NOW.wall);
        assert_eq!(store.not_before(), NOW.wall);
        assert_eq!(store.past(), Past::Continuous);
        assert!(store.is_durable() && !store.is_shared());
    }

    #[tokio::test]
    async fn a_store_that_accepts_existing_tokens_begins_with_the_first_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        Store::create(&path, NOW, true).unwrap();
        let store = Store::open(&path, NOW).unwrap();
        assert_eq!((store.created_at(), store.not_before()), (NOW.wall, Timestamp::EPOCH));
        drop(store);

        let path = folder.path().join("another.db");
        let store = Store::open(&path, NOW).unwrap();
        for (asked, kept) in [(3_000, 3_000), (4_000, 3_000), (2_000, 2_000)] {
            store.lower_not_before(Timestamp::from_millis(asked)).await.unwrap();
            let beside = Store::open_read_only(&path).unwrap().unwrap();
            assert_eq!(beside.not_before(), Timestamp::from_millis(kept), "{asked}");
        }
    }

    #[test]
    fn a_copy_of_a_new_file_without_its_log_is_known_for_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("gate.db"), folder.path().join("copy.db"));
        let store = Store::open(&path, NOW).unwrap();
        std::fs::copy(&path, &copy).unwrap();
        let copied = Store::open(&copy, Now::at_millis(9_000)).unwrap();
        assert_eq!(copied.past(), Past::Unseen { known: 0 });
        assert_eq!(copied.created_at(), NOW.wall);
        assert_eq!(copied.log(), store.log());
    }

    #[test]
    fn a_database_of_another_program_is_foreign_however_little_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        for statement in ["CREATE TABLE notes (text)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"]
        {
            drop(std::fs::remove_file(&path));
            Connection::open(&path).unwrap().execute_batch(statement).unwrap();
            let before = std::fs::read(&path).unwrap();
            assert!(matches!(Store::open(&path, NOW), Err(OpenError::Foreign(_))), "{statement}");
            assert!(matches!(Store::open_read_only(&path), Err(OpenError::Foreign(_))), "{statement}");
            let to = folder.path().join("copy.db");
            assert!(matches!(Store::back_up(&path, &to), Err(OpenError::Foreign(_))), "{statement}");
            assert!(!to.exists());
            assert_eq!(std::fs::read(&path).unwrap(), before, "{statement}");
        }
    }

    #[tokio::test]
    async fn a_store_that_is_open_for_reading_is_beside_the_one_that_writes_and_never_writes_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a gate.db");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(Store::open_read_only(&path), Ok(None)), "nothing is in it");
        let inside = Store::open_read_only(&path.join("inside")).unwrap_err();
        assert!(matches!(inside, OpenError::Io(..)), "not the same as no store: {inside:?}");
        let writes = Store::open(&path, NOW).unwrap();
        for is_beside in [true, false] {
            let store = Store::open_read_only(&path).unwrap().unwrap();
            assert_eq!(store.created_at(), NOW.wall, "beside: {is_beside}");
            assert_eq!(store.past(), Past::Continuous);
            let why = store.lower_not_before(Timestamp::EPOCH).await.unwrap_err();
            assert!(why.to_string().contains("readonly"), "{why}");
            if is_beside {
                writes.close().await;
            }
        }
    }

    #[test]
    fn what_sqlite_says_of_a_file_is_told_apart() {
        let of = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let told = |error: rusqlite::Error| SchemaProblem::from(error).at(Path::new("gate.db"));
        assert!(matches!(told(of(ffi::SQLITE_NOTADB)), OpenError::Foreign(_)));
        assert!(matches!(told(of(ffi::SQLITE_CORRUPT)), OpenError::Corrupt(..)));
        assert!(matches!(told(of(ffi::SQLITE_IOERR)), OpenError::Io(..)));
        let missing = told(rusqlite::Error::QueryReturnedNoRows);
        assert!(matches!(&missing, OpenError::Corrupt(_, what) if what == "a row is missing"), "{missing:?}");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        drop(Store::open(&path, NOW).unwrap());
        Connection::open(&path).unwrap().execute("DELETE FROM origin", []).unwrap();
        assert!(matches!(Store::open(&path, NOW), Err(OpenError::Corrupt(..))));
    }
}
