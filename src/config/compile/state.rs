//! `[sessions]`, `[streams]` and `[state]`.

use std::time::Duration;

use crate::config::section::{Section, not_one_of};
use crate::config::settings::{OnEmpty, SessionSettings, StateSettings, Store};
use crate::config::url::without_password;
use crate::config::values::Zero;
use crate::gate::StreamSettings;

/// `[sessions]`.
pub(super) fn sessions(s: &mut Section<'_>) -> SessionSettings {
    let idle_timeout = s.duration("idle_timeout", "30m", Zero::Allowed);
    SessionSettings {
        idle_timeout: (idle_timeout > Duration::ZERO).then_some(idle_timeout),
        max_tracked: s.count("max_tracked", 1_000_000, 1..=i64::MAX),
    }
}

/// `[streams]`.
pub(super) fn streams(s: &mut Section<'_>) -> StreamSettings {
    StreamSettings {
        cut_on_revocation: s.flag("cut_on_revocation", true),
        check_interval: s.duration("check_interval", "1s", Zero::Refused),
    }
}

/// `[state]`.
pub(super) fn state(s: &mut Section<'_>) -> StateSettings {
    let path = s.parsed("path", "portcullis.db", filled).unwrap_or_default();
    let path = s.reading.beside(&path);
    s.show("path", path.to_string_lossy());
    let store = |text: &str| match text {
        "embedded" => Ok(Store::Embedded(path)),
        "memory" => Ok(Store::Memory),
        "redis" => {
            Err("\"redis\" is not supported by this version; use \"embedded\" or \"memory\"".to_owned())
        }
        other => Err(not_one_of(other, &["embedded", "memory", "redis"])),
    };
    let store = s.parsed("store", "embedded", store).unwrap_or(Store::Memory);
    shared_store(s);
    StateSettings {
        store,
        max_staleness: s.duration("max_staleness", "10s", Zero::Refused),
        flush_interval: s.duration("flush_interval", "1s", Zero::Refused),
        on_empty: s.word("on_empty", ("refuse", OnEmpty::Refuse), &[("trust", OnEmpty::Trust)]),
    }
}

/// The keys of the shared store, so that a file may hold them whatever its `store`.
fn shared_store(s: &mut Section<'_>) {
    const SCHEMES: [&str; 4] = ["redis://", "rediss://", "redis-sentinel://", "redis-cluster://"];
    let url = s.parsed("url", "redis://127.0.0.1:6379", |text| {
        let known = SCHEMES.iter().any(|scheme| text.starts_with(scheme));
        known
            .then(|| without_password(text))
            .ok_or_else(|| format!("must begin with one of {}", SCHEMES.join(", ")))
    });
    s.show("url", url);
    s.text("username", "");
    s.secret("password");
    s.parsed("key_prefix", "portcullis", filled);
}

fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}
