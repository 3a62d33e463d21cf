//! Opens connections to one endpoint for one worker's requests, and decides how many at once and with which
//! protocol.
//!
//! Many requests without a connection must not open many where one HTTP/2 connection is enough, and must not
//! wait for each other where each needs its own. The first TLS handshake decides this (ALPN), and the result
//! is remembered here.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

use super::ForwardError;
use super::http2::{Http2Pool, StreamSlot};

/// The protocol of an endpoint, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Protocol {
    /// Not known yet: one connection is opened to find out.
    #[default]
    Unknown,
    /// One request at a time on each connection.
    Http1,
    /// Many requests on each connection.
    Http2,
}

/// Coordinates which requests open connections and which wait.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    protocol: Cell<Protocol>,
    /// Number of requests that wait for an HTTP/2 connection or open one.
    waiting: Cell<usize>,
    /// Number of those that open one.
    dialing: Cell<usize>,
    /// Signals that a connection was opened or failed.
    changed: Notify,
}

/// What a request without an open connection does next.
pub(crate) enum DialTurn<'a> {
    /// Use a connection that another request opened.
    Share(StreamSlot),
    /// Open a connection that others may wait for.
    Dial(Dialing<'a>),
    /// Open a connection of its own.
    DialAlone,
}

impl Dialer {
    /// Remembers the protocol that a connection negotiated.
    pub(crate) fn learn(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    /// Waits for a connection that others are opening, at most for `limit`, as long as enough are being
    /// opened.
    pub(crate) async fn turn(&self, pool: &Http2Pool, limit: Duration) -> Result<DialTurn<'_>, ForwardError> {
        let _waiting = DialTally::new(&self.waiting);
        let turn = async {
            loop {
                // Subscribes before looking, so that a change in between is not missed.
                let changed = self.changed.notified();
                if self.protocol.get() == Protocol::Http1 {
                    return DialTurn::DialAlone;
                }
                if let Some(slot) = pool.take() {
                    return DialTurn::Share(slot);
                }
                if self.may_dial(pool) {
                    return DialTurn::Dial(Dialing::new(self));
                }
                changed.await;
            }
        };
        let turn = tokio::time::timeout(limit, turn).await;
        turn.map_err(|_elapsed| ForwardError::not_connected_within(limit))
    }

    /// Whether too few connections are being opened for the waiting requests.
    fn may_dial(&self, pool: &Http2Pool) -> bool {
        let dialing = self.dialing.get();
        let enough = match (self.protocol.get(), pool.streams_each()) {
            (Protocol::Http2, Some(streams)) => dialing.saturating_mul(streams.max(1)),
            // One is enough until it tells how many streams it allows.
            _ => dialing.saturating_mul(usize::MAX),
        };
        self.waiting.get() > enough
    }
}

/// Increments a count until dropped.
struct DialTally<'a>(&'a Cell<usize>);

impl<'a> DialTally<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for DialTally<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A connection being opened. Dropping it, whatever the outcome, wakes the waiting requests.
pub(crate) struct Dialing<'a> {
    dialer: &'a Dialer,
    _dialing: DialTally<'a>,
    /// The request that opens it waits for it too.
    _waiting: DialTally<'a>,
}

impl<'a> Dialing<'a> {
    fn new(dialer: &'a Dialer) -> Self {
        Self { dialer, _dialing: DialTally::new(&dialer.dialing), _waiting: DialTally::new(&dialer.waiting) }
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.dialer.changed.notify_waiters();
    }
}
