//! Failures of the shared store, classified by what can be done about them.

use std::fmt;
use std::io;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::state::StoreError;

/// Why a call to the shared store failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RedisFault {
    /// It cannot work until somebody changes the configuration or the server; says what to change.
    Refused(String),
    /// The server is out of memory: it accepts reads but no writes.
    Full,
    /// The server rejects writes for a reason other than memory; it may have been replaced as primary.
    Unwritable(String),
    /// The data is now on another server, or the database has been replaced.
    Moved(String),
    /// The server cannot be reached, does not respond, or is not ready; it may be soon.
    Unreachable(String),
}

impl RedisFault {
    pub(super) fn silent(what: impl fmt::Display) -> Self {
        Self::Unreachable(format!("{what} did not respond in time"))
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(what) | Self::Moved(what) | Self::Unreachable(what) => f.write_str(what),
            Self::Unwritable(what) => write!(f, "Redis rejects writes: {what}"),
            Self::Full => f.write_str("Redis has reached maxmemory and rejects writes; raise maxmemory"),
        }
    }
}

impl From<RedisError> for RedisFault {
    fn from(error: RedisError) -> Self {
        let said = error.to_string();
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Self::Refused(format!(
                "Redis rejected the credentials; check state.username and state.password: {said}"
            )),
            kind if kind == ErrorKind::Server(ServerErrorKind::NoPerm)
                || said.contains("can't run this command") =>
            {
                Self::Refused(format!("the ACL of the Redis user lacks a required permission: {said}"))
            }
            ErrorKind::Server(
                ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ReadOnly,
            ) => Self::Moved(said),
            _ if said.contains("OOM") => Self::Full,
            // Too few replicas, or its disk cannot be written.
            _ if said.contains("NOREPLICAS") || said.contains("MISCONF") => Self::Unwritable(said),
            _ if said.contains("WRONGPASS") || said.contains("NOAUTH") => Self::Refused(format!(
                "Redis rejected the credentials; check state.username and state.password: {said}"
            )),
            _ if said.contains("READONLY") || said.contains("STALE") => Self::Moved(said),
            _ => Self::Unreachable(said),
        }
    }
}

impl From<io::Error> for RedisFault {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl From<RedisFault> for StoreError {
    fn from(fault: RedisFault) -> Self {
        match fault {
            RedisFault::Full => Self::Full,
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl From<StoreError> for RedisFault {
    fn from(error: StoreError) -> Self {
        Self::Unreachable(error.to_string())
    }
}
