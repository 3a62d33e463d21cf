//! Opens connections to one endpoint for one worker's requests: how many at the same time, and with which protocol.
//!
//! Many requests without a connection must not open many where one HTTP/2 connection is enough, and must not wait for one
//! another where each needs its own. The first TLS handshake decides this (ALPN), and the result is remembered here.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

use super::ForwardError;
use super::http2::{Http2Pool, StreamSlot};

/// What is known of an endpoint's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Protocol {
    /// Nothing yet: one connection is opened, and tells.
    #[default]
    Unknown,
    /// One request at a time on each connection.
    Http1,
    /// Many requests on each connection.
    Http2,
}

/// Who may open a connection, and who waits.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    protocol: Cell<Protocol>,
    /// Requests that wait for an HTTP/2 connection or open one.
    waiting: Cell<usize>,
    /// Those of them that open one.
    dialing: Cell<usize>,
    /// A connection was opened, or could not be.
    changed: Notify,
}

/// What a request that found no open connection does next.
pub(crate) enum DialTurn<'a> {
    /// Another one opened a connection that both can use.
    Share(StreamSlot),
    /// It opens a connection that others may wait for.
    Dial(Dialing<'a>),
    /// It opens a connection for itself.
    DialAlone,
}

impl Dialer {
    /// Remembers what a connection turned out to speak.
    pub(crate) fn learn(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    /// Waits for a connection that others are opening, for `limit` at most, as long as there are enough of them.
    pub(crate) async fn turn(&self, pool: &Http2Pool, limit: Duration) -> Result<DialTurn<'_>, ForwardError> {
        let _waiting = DialTally::new(&self.waiting);
        let turn = async {
            loop {
                // Before looking: what changes in between is not missed.
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

    /// Whether the connections that are being opened are too few for those who wait.
    fn may_dial(&self, pool: &Http2Pool) -> bool {
        let dialing = self.dialing.get();
        let enough = match (self.protocol.get(), pool.streams_each()) {
            (Protocol::Http2, Some(streams)) => dialing.saturating_mul(streams.max(1)),
            // One will do, until it tells how many streams it allows.
            _ => dialing.saturating_mul(usize::MAX),
        };
        self.waiting.get() > enough
    }
}

/// Counts up while it lives.
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

/// A connection that is being opened. Dropping it, whatever came of it, wakes those who wait.
pub(crate) struct Dialing<'a> {
    dialer: &'a Dialer,
    _dialing: DialTally<'a>,
    /// The request that opens it waits for it, too.
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
