//! Why a store cannot be opened or used, with advice on what to do.

use std::fmt;
use std::path::PathBuf;

/// Why the store could not be opened. Each message says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Another process holds this lock file.
    InUse(PathBuf),
    /// The file is not a Portcullis database.
    Foreign(PathBuf),
    /// A later release wrote the file.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The last version known here.
        known: i64,
    },
    /// The store does not exist, and the caller did not want to create one.
    Missing(PathBuf),
    /// The store exists, and the caller wanted to create a new one.
    Exists(PathBuf),
    /// The file is damaged.
    Corrupt(PathBuf, String),
    /// The file could not be used.
    Io(PathBuf, String),
    /// The shared store cannot be used until somebody changes what the text says.
    Refused(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(f, "{}: is locked by another process; each gate needs its own store", path.display())
            }
            Self::Foreign(path) => {
                write!(f, "{}: is not a Portcullis database; it was not changed", path.display())
            }
            Self::Newer { path, version, known } => write!(
                f,
                "{}: was written by a later release (version {version}; this release supports {known}); it was not changed",
                path.display()
            ),
            Self::Missing(path) => write!(f, "{}: does not exist yet", path.display()),
            Self::Exists(path) => {
                write!(f, "{}: already exists; it was not changed", path.display())
            }
            Self::Corrupt(path, what) => write!(
                f,
                "{}: the database is damaged ({what}); restore it, or move it away to start with an empty one",
                path.display()
            ),
            Self::Io(path, what) => write!(f, "{}: cannot be used: {what}", path.display()),
            Self::Refused(what) => write!(f, "the shared store (state.url) cannot be used: {what}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why the store could not do what was asked. Nothing was stored, and the next call may succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// No space is left: the disk, or the memory of the shared store, is full.
    Full,
    /// The database returned this error.
    Failed(String),
    /// The shared store cannot be reached or cannot be written to.
    Unreachable(String),
    /// The store is closed.
    Closed,
}

impl StoreError {
    /// One word, for the metric label.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Failed(_) => "failed",
            Self::Unreachable(_) => "unreachable",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the state store is full: free its disk, or raise its maxmemory"),
            Self::Failed(what) => write!(f, "the state store failed: {what}"),
            Self::Unreachable(what) => write!(f, "the shared state store is temporarily unavailable: {what}"),
            Self::Closed => f.write_str("the state store is closed"),
        }
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_what_it_is_and_what_to_do() {
        for (error, kind, text) in [
            (StoreError::Full, "full", "the state store is full: free its disk, or raise its maxmemory"),
            (StoreError::Failed("no".into()), "failed", "the state store failed: no"),
            (
                StoreError::Unreachable("no".into()),
                "unreachable",
                "the shared state store is temporarily unavailable: no",
            ),
            (StoreError::Closed, "closed", "the state store is closed"),
        ] {
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        }
    }
}
