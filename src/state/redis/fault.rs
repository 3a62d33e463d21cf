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

#[cfg(test)]
mod tests {
    use super::*;

    /// The fault for what a server answers.
    fn fault(answer: &str) -> RedisFault {
        let answer = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        answer.extract_error().unwrap_err().into()
    }

    #[test]
    fn each_answer_is_classified_by_what_can_be_done_about_it() {
        for (answer, kind) in [
            ("NOPERM this user has no permissions to run the 'eval' command", "refused"),
            ("ERR The user executing the script can't run this command or subcommand", "refused"),
            ("MOVED 3999 127.0.0.1:6381", "moved"),
            ("ASK 3999 127.0.0.1:6381", "moved"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "moved"),
            ("READONLY You can't write against a read only replica.", "moved"),
            ("ERR READONLY You can't write against a read only replica. script: f_1", "moved"),
            ("STALE this is another database", "moved"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "full"),
            ("ERR OOM command not allowed when used memory > 'maxmemory'. script: f_1", "full"),
            ("NOREPLICAS Not enough good replicas to write.", "unwritable"),
            ("MISCONF Redis is configured to save RDB snapshots", "unwritable"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "refused"),
            ("NOAUTH Authentication required.", "refused"),
            ("LOADING Redis is loading the dataset in memory", "unreachable"),
            ("NOSCRIPT No matching script. Please use EVAL.", "unreachable"),
            ("ERR unknown command", "unreachable"),
        ] {
            let found = match fault(answer) {
                RedisFault::Refused(_) => "refused",
                RedisFault::Full => "full",
                RedisFault::Unwritable(_) => "unwritable",
                RedisFault::Moved(_) => "moved",
                RedisFault::Unreachable(_) => "unreachable",
            };
            assert_eq!(found, kind, "{answer}");
        }
    }

    #[test]
    fn a_refusal_names_what_to_change() {
        let credentials = "Redis rejected the credentials; check state.username and state.password: ";
        let acl = "the ACL of the Redis user lacks a required permission: ";
        for (fault, start) in [
            (fault("NOPERM no"), acl),
            (fault("ERR can't run this command"), acl),
            (fault("WRONGPASS no"), credentials),
            (fault("NOAUTH no"), credentials),
            (RedisError::from((ErrorKind::AuthenticationFailed, "no")).into(), credentials),
            (RedisError::from((ErrorKind::InvalidClientConfig, "no")).into(), credentials),
        ] {
            assert!(fault.to_string().starts_with(start), "{fault}");
        }
    }
}
