//! Fixed timeouts and limits of this room, each with its reason.
//!
//! The timeouts that operators can set (`header_timeout`, `idle_connection_timeout`, `drain_timeout`) are in [`Settings`](super::Settings) and [`GateLimits`](super::GateLimits).

use std::time::Duration;

/// The first pause when no connection can be accepted, for example because file descriptors have run out …
pub(super) const FIRST_ACCEPT_PAUSE: Duration = Duration::from_millis(5);
/// … and the longest: each failure doubles the pause, so that a worker without descriptors does not spin.
pub(super) const LONGEST_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long an idle connection has for its protocol's graceful close; a request that crosses it is still
/// served.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// After the last response, how long a client may send nothing before its connection closes: closing at once
/// could destroy the response (RFC 9112 §9.6) …
pub(super) const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// … how long this may take in total, because a body or streams may be in flight …
pub(super) const LINGER_TOTAL: Duration = Duration::from_secs(10);
/// … and how much of its data is read in that time.
pub(super) const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// How often an HTTP/2 client is pinged, because TCP alone detects a lost peer late …
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
/// … and how long it may take to answer.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the body of a rejected request is read over HTTP/1.1: a small one is cheaper than a new
/// connection …
pub(super) const UNWANTED_BODY: Duration = Duration::from_secs(1);
/// … and how much of it.
pub(super) const UNWANTED_BODY_BYTES: u64 = 64 * 1024;
/// How long the body of an answered stream is read before the stream is reset: some clients would lose the
/// response …
pub(super) const UNWANTED_STREAM: Duration = Duration::from_secs(2);
/// … and how much of it; the connection's other streams are not affected.
pub(super) const UNWANTED_STREAM_BYTES: usize = 16 * 1024 * 1024;

/// How long a request body for the authority may take to arrive: it is small, and the client is not
/// authenticated yet.
pub(super) const AUTHORITY_BODY: Duration = Duration::from_secs(10);

/// How far a last use may lag behind the last byte: bytes in quick succession are one use.
pub(super) const SAME_USE: Duration = Duration::from_millis(250);
/// How often a draining worker looks for streams that would last. A stream that began less than this ago may
/// be a response that is about to end, as with most gRPC calls.
pub(super) const LAST_LOOKS: Duration = Duration::from_millis(250);
/// How often a worker checks whether a new configuration wants streams judged sooner.
pub(super) const CONFIGURATION_LOOK: Duration = Duration::from_millis(500);
/// When a connection checks again while nothing is due: rarely enough to cost nothing.
pub(super) const NOTHING_DUE: Duration = Duration::from_secs(60);
