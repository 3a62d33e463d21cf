//! Fixed timeouts and limits of this room, each with its reason.
//!
//! The timeouts that operators can set (`header_timeout`, `idle_connection_timeout`, `drain_timeout`) are in [`Settings`](super::Settings) and [`GateLimits`](super::GateLimits).

use std::time::Duration;

/// The first pause when no connection can be accepted, as when file descriptors have run out …
pub(super) const FIRST_ACCEPT_PAUSE: Duration = Duration::from_millis(5);
/// … and the longest: each failure doubles it, so that a worker out of descriptors does not spin.
pub(super) const LONGEST_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long an idle connection has for the farewell of its protocol; a request that crosses it is still served.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// How long a client may send nothing before its connection closes after the last words: closing at once could take them
/// away (RFC 9112 §9.6) …
pub(super) const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// … how long it may take in all, as it may have a body or streams in flight …
pub(super) const LINGER_TOTAL: Duration = Duration::from_secs(10);
/// … and how much of what it still sends is read meanwhile.
pub(super) const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// How often a client of HTTP/2 is asked whether it is still there, which TCP alone finds out late …
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
/// … and how long it may take to say so.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the body of a refused request is read over HTTP/1.1: a small one is cheaper than a new connection …
pub(super) const UNWANTED_BODY: Duration = Duration::from_secs(1);
/// … and how much of it.
pub(super) const UNWANTED_BODY_BYTES: u64 = 64 * 1024;
/// How long the body of an answered stream is read before the stream is reset: some clients lose the response otherwise …
pub(super) const UNWANTED_STREAM: Duration = Duration::from_secs(2);
/// … and how much of it; it takes nothing from the connection's other streams.
pub(super) const UNWANTED_STREAM_BYTES: usize = 16 * 1024 * 1024;

/// How long a body for the authority may take to come: it is small, and nobody has authenticated yet.
pub(super) const AUTHORITY_BODY: Duration = Duration::from_secs(10);

/// How much older than the last byte a last use may be: bytes in quick succession are one use.
pub(super) const SAME_USE: Duration = Duration::from_millis(250);
/// How often a worker that drains looks for streams that would last. What has begun less than this ago may be a response
/// that is over in a moment, as with most calls of gRPC.
pub(super) const LAST_LOOKS: Duration = Duration::from_millis(250);
/// How often a worker looks whether another configuration wants streams judged sooner.
pub(super) const CONFIGURATION_LOOK: Duration = Duration::from_millis(500);
/// When a connection looks again while nothing is due: any time far enough to cost nothing.
pub(super) const NOTHING_DUE: Duration = Duration::from_secs(60);
