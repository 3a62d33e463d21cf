//! `[sessions]`, `[streams]` and `[state]`.

use std::sync::Arc;
use std::time::Duration;

use crate::config::section::Section;
use crate::config::settings::{IssuerSettings, OnEmpty, SessionSettings, StateSettings, StoreSettings};
use crate::config::url::without_password;
use crate::config::values::Zero;
use crate::gate::StreamSettings;
use crate::sessions::IdleTimeouts;
use crate::state::redis;
use crate::state::redis::endpoint::{RedisEndpoint, Topology};

/// The kinds of stores.
#[derive(Clone, Copy)]
enum StoreKind {
    Embedded,
    Memory,
    Redis,
}

/// `[sessions]`, and the timeouts of issuers that override it.
pub(super) fn sessions(s: &mut Section<'_>, issuers: &[IssuerSettings]) -> SessionSettings {
    let timeout = |duration: Duration| (duration > Duration::ZERO).then_some(duration);
    let common = timeout(s.duration("idle_timeout", "30m", Zero::Allowed));
    let own =
        issuers.iter().filter_map(|one| Some((Arc::clone(&one.rules.issuer), timeout(one.idle_timeout?))));
    SessionSettings {
        idle_timeouts: IdleTimeouts::new(common, own),
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
    let redis = shared_store(s);
    let others = [("memory", StoreKind::Memory), ("redis", StoreKind::Redis)];
    let store = match s.word("store", ("embedded", StoreKind::Embedded), &others) {
        StoreKind::Embedded => StoreSettings::Embedded(path),
        StoreKind::Memory => StoreSettings::Memory,
        // Without settings, their problem has been reported.
        StoreKind::Redis => {
            redis.map_or(StoreSettings::Memory, |redis| StoreSettings::Redis(Box::new(redis)))
        }
    };
    StateSettings {
        store,
        max_staleness: s.duration("max_staleness", "10s", Zero::Refused),
        flush_interval: s.duration("flush_interval", "1s", Zero::Refused),
        on_empty: s.word("on_empty", ("refuse", OnEmpty::Refuse), &[("trust", OnEmpty::Trust)]),
    }
}

/// The keys of the shared store, read whatever `store` is; `None` if one is wrong.
fn shared_store(s: &mut Section<'_>) -> Option<redis::Settings> {
    let endpoint = s.parsed("url", "redis://127.0.0.1:6379", shown_endpoint);
    s.show("url", endpoint.as_ref().map(|(_, shown)| shown.clone()));
    let events = s.parsed("events_url", "", |text| match text {
        "" => Ok(None),
        text => shown_endpoint(text).map(Some),
    });
    s.show(
        "events_url",
        events.as_ref().map(|events| events.as_ref().map_or("", |(_, shown)| shown).to_owned()),
    );
    let (username, password) = (s.text("username", ""), s.secret("password").unwrap_or_default());
    let key_prefix = s.parsed("key_prefix", "portcullis", |text| match filled(text)? {
        text if text.contains(['{', '}']) => {
            Err("must not contain braces, which have a meaning in Redis Cluster".to_owned())
        }
        text => Ok(text),
    });
    let ca = s.file("ca");
    let known = |(endpoint, _): (RedisEndpoint, String)| with_credentials(endpoint, &username, &password);
    let (endpoint, events) = (known(endpoint?), events?.map(known));
    if events.as_ref().is_some_and(|events| events.topology != Topology::Single) {
        s.problem("events_url", "must be one redis:// or rediss:// address, that of the read replicas");
    }
    Some(redis::Settings { endpoint, events, ca, key_prefix: key_prefix? })
}

fn shown_endpoint(text: &str) -> Result<(RedisEndpoint, String), String> {
    RedisEndpoint::parse(text).map(|endpoint| (endpoint, without_password(text)))
}

/// Applies the credentials of separate keys, which take precedence over those in the URL.
fn with_credentials(mut endpoint: RedisEndpoint, username: &str, password: &str) -> RedisEndpoint {
    if !username.is_empty() {
        username.clone_into(&mut endpoint.credentials.username);
    }
    if !password.is_empty() {
        password.clone_into(&mut endpoint.credentials.password);
    }
    endpoint
}

fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}
