//! Checks whether a server is suitable: its version, its role, and the settings that could make it lose keys.

use std::time::Duration;

use redis::{Value, cmd};

use super::connect::RedisConnection;
use super::fault::RedisFault;

/// The oldest release that supports what the scripts use (`PXAT`, `XTRIM MINID`).
const OLDEST: (u32, u32) = (6, 2);

/// A setting that endangers stored data, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Warning {
    /// The metric label.
    pub(super) setting: &'static str,
    /// What to change.
    pub(super) advice: &'static str,
}

/// All possible warnings, so that the metric also shows settings that are fine.
pub(super) const WARNINGS: [Warning; 2] = [
    Warning {
        setting: "maxmemory-policy",
        advice: "Redis may evict keys, and with them events and last uses; set maxmemory-policy noeviction",
    },
    Warning {
        setting: "appendonly",
        advice: "Redis has no append-only file, so a restart may lose events that no replica still has; set appendonly yes (and appendfsync always or everysec)",
    },
];

/// Refuses an unsuitable server; returns warnings about a questionable one.
pub(super) async fn check(server: &RedisConnection, patience: Duration) -> Result<Vec<Warning>, RedisFault> {
    let role: Vec<Value> = server.ask(&cmd("ROLE"), patience).await?;
    if !is_primary(&role) {
        return Err(RedisFault::Refused(
            "the server is a read-only replica; point state.url at the primary, or use redis-sentinel:// to find it".to_owned(),
        ));
    }
    let info: String = server.ask(&cmd("INFO"), patience).await?;
    let fact =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let version = fact("redis_version").unwrap_or_default();
    if !is_recent(version) {
        let (major, minor) = OLDEST;
        return Err(RedisFault::Refused(format!(
            "Redis {version} is too old; {major}.{minor} or later is required"
        )));
    }
    let found = [
        fact("maxmemory_policy").is_some_and(|policy| policy != "noeviction"),
        fact("aof_enabled") == Some("0"),
    ];
    Ok(WARNINGS.into_iter().zip(found).filter(|(_, found)| *found).map(|(warning, _)| warning).collect())
}

/// Whether a reply to `ROLE` comes from a primary.
pub(super) fn is_primary(role: &[Value]) -> bool {
    matches!(role.first(), Some(Value::BulkString(word)) if word == b"master")
}

/// Whether the version is recent enough. One that cannot be parsed is accepted: compatible servers
/// number theirs differently.
fn is_recent(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, recent) in [
            ("6.2.0", true),
            ("7.0.15", true),
            ("10.0.1", true),
            ("6.0.16", false),
            ("5.9", false),
            ("", true),
        ] {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }
}
