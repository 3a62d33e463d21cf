//! Fixed timeouts and limits of this room, each with its reason.
//!
//! The timeouts that operators can set (`connect_timeout`, `response_timeout`, `body_timeout`, `idle_timeout`) are in
//! [`UpstreamSettings`](super::UpstreamSettings).

use std::time::Duration;

/// An unused TCP connection is probed after so long …
pub(super) const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// … and then so often.
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// A peer that acknowledges neither data nor probes for so long is gone (`TCP_USER_TIMEOUT`). Linux also counts the time in
/// which a peer takes nothing although there is something to send, so this is not shorter.
pub(super) const PEER_GONE: Duration = Duration::from_secs(120);

/// The next address of a name is tried when the last one has not answered for so long (RFC 8305 §5).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long an address that could not be connected to is tried last.
pub(super) const ADDRESS_LEFT_OUT: Duration = Duration::from_secs(30);
/// How long an entry of `urls` that could not be connected to gets no requests.
pub(super) const ENDPOINT_LEFT_OUT: Duration = Duration::from_secs(5);

/// Idle HTTP/1.1 connections are looked over at least so often, so that one the upstream has closed does not linger.
pub(super) const LONGEST_NAP: Duration = Duration::from_secs(15);
/// Most idle HTTP/1.1 connections kept of one endpoint; what is given back beyond it is closed.
pub(super) const MAX_IDLE: usize = 1024;

/// How long a held body waits for `100 Continue` (RFC 9110 §10.1.1: not indefinitely).
pub(super) const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// Most interim responses to one request.
pub(super) const MAX_INTERIM: u32 = 64;

/// How long a client whose tunnel is cut may take to read the farewell.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// How long a tunnel whose one side has ended may be silent on the other: that peer has probably gone, too.
pub(super) const HALF_OPEN: Duration = Duration::from_secs(5);
