//! Fixed timeouts and limits of this room, each with its reason.
//!
//! The timeouts that operators can set (`connect_timeout`, `response_timeout`, `body_timeout`, `idle_timeout`) are in
//! [`UpstreamSettings`](super::UpstreamSettings).

use std::time::Duration;

/// An unused TCP connection is probed after this time …
pub(super) const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// … and then at this interval.
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// A peer that acknowledges neither data nor probes for this long is gone (`TCP_USER_TIMEOUT`). Linux also
/// counts the time in which a peer accepts no data although there is some to send, so this must not be
/// shorter.
pub(super) const PEER_GONE: Duration = Duration::from_secs(120);

/// The next address of a name is tried if the last one has not responded for this long (RFC 8305 §5).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long an address is tried last after it could not be connected to.
pub(super) const ADDRESS_LEFT_OUT: Duration = Duration::from_secs(30);
/// How long an entry of `urls` gets no requests after it could not be connected to.
pub(super) const ENDPOINT_LEFT_OUT: Duration = Duration::from_secs(5);

/// Idle HTTP/1.1 connections are checked at least this often, so that one that the upstream has closed is
/// closed here too.
pub(super) const LONGEST_NAP: Duration = Duration::from_secs(15);
/// Maximum number of idle HTTP/1.1 connections per endpoint; further ones are closed.
pub(super) const MAX_IDLE: usize = 1024;

/// How long a held body waits for `100 Continue` (RFC 9110 §10.1.1: not indefinitely).
pub(super) const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// Maximum number of interim responses to one request.
pub(super) const MAX_INTERIM: u32 = 64;

/// How long a client whose tunnel is cut may take to read the close.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// How long one side of a tunnel may be silent after the other has ended: that peer is probably gone too.
pub(super) const HALF_OPEN: Duration = Duration::from_secs(5);
