//! The state of an HTTP/1.1 connection, and how long its client may keep it in that state.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// No byte of a request has been received.
    Waiting,
    /// A head has begun.
    Head,
    /// A request is being served, up to the last byte of its response.
    Serving,
    /// The connection no longer carries HTTP.
    Tunnel,
}

/// How long each phase may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of a request, from its first byte or the end of the previous response.
    pub(super) head: Duration,
    /// Without a request, for a client that does not read its response, and for one that has closed its side
    /// and receives nothing: it may have gone away, or wait for a slow response.
    pub(super) idle: Duration,
}

/// The current phase of a connection and when it began.
#[derive(Debug)]
pub(super) struct ConnectionStanding {
    phase: Cell<ConnectionPhase>,
    since: Cell<Instant>,
    /// When the client stopped reading; `None` while it reads.
    stalled: Cell<Option<Instant>>,
    /// When data was last sent to a client that has closed its side.
    ended: Cell<Option<Instant>>,
}

impl ConnectionStanding {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Cell::new(ConnectionPhase::Waiting),
            since: Cell::new(now),
            stalled: Cell::new(None),
            ended: Cell::new(None),
        }
    }

    pub(super) fn phase(&self) -> ConnectionPhase {
        self.phase.get()
    }

    /// Enters a phase; does nothing if the connection is already in it.
    pub(super) fn enter(&self, phase: ConnectionPhase) {
        if self.phase.replace(phase) != phase
            && matches!(phase, ConnectionPhase::Waiting | ConnectionPhase::Head)
        {
            self.since.set(Instant::now());
        }
    }

    /// Records whether the last write was accepted.
    pub(super) fn wrote(&self, room: bool) {
        match (room, self.stalled.get()) {
            (true, Some(_)) => self.stalled.set(None),
            (false, None) => self.stalled.set(Some(Instant::now())),
            _ => {}
        }
        if room && self.ended.get().is_some() {
            self.ended.set(Some(Instant::now()));
        }
    }

    /// Records that the client has closed its side.
    pub(super) fn client_ended(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(Instant::now()));
        }
    }

    /// The deadline in the current state; `None` as long as the client does not cause the delay.
    pub(super) fn deadline(&self, patience: Patience) -> Option<Instant> {
        let (since, patience) = match self.phase() {
            ConnectionPhase::Waiting => (self.since.get(), patience.idle),
            ConnectionPhase::Head => (self.since.get(), patience.head),
            ConnectionPhase::Serving => (self.stalled.get().or(self.ended.get())?, patience.idle),
            ConnectionPhase::Tunnel => return None,
        };
        since.checked_add(patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    /// A connection that was opened this many seconds ago.
    fn standing(ago: u64) -> ConnectionStanding {
        ConnectionStanding::new(Instant::now().checked_sub(Duration::from_secs(ago)).unwrap())
    }

    /// Seconds from now to the deadline.
    fn left(standing: &ConnectionStanding) -> Option<f64> {
        let (now, deadline) = (Instant::now(), standing.deadline(PATIENCE)?);
        let left = deadline.saturating_duration_since(now).as_secs_f64();
        Some((left - now.saturating_duration_since(deadline).as_secs_f64()).round())
    }

    #[test]
    fn patience_follows_the_phases() {
        let standing = standing(20);
        assert_eq!(left(&standing), Some(55.0));
        standing.enter(ConnectionPhase::Head);
        assert_eq!(left(&standing), Some(10.0));
        standing.since.set(standing.since.get() - Duration::from_secs(8));
        standing.enter(ConnectionPhase::Head);
        assert_eq!(left(&standing), Some(2.0), "more of the same head buys no time");
        standing.enter(ConnectionPhase::Serving);
        assert_eq!(left(&standing), None);
        standing.enter(ConnectionPhase::Head);
        assert_eq!(left(&standing), Some(10.0));
        standing.enter(ConnectionPhase::Serving);
        standing.enter(ConnectionPhase::Waiting);
        assert_eq!(left(&standing), Some(75.0));
        standing.enter(ConnectionPhase::Tunnel);
        assert_eq!(left(&standing), None);
    }

    #[test]
    fn a_client_that_does_not_read_loses_patience_until_it_does() {
        let standing = standing(20);
        standing.enter(ConnectionPhase::Serving);
        standing.wrote(false);
        assert_eq!(left(&standing), Some(75.0));
        standing.stalled.set(standing.stalled.get().map(|since| since - Duration::from_secs(15)));
        standing.wrote(false);
        assert_eq!(left(&standing), Some(60.0));
        standing.wrote(true);
        assert_eq!(left(&standing), None);
    }

    #[test]
    fn a_client_that_has_ended_its_side_has_patience_as_long_as_something_flows() {
        let standing = standing(100);
        standing.enter(ConnectionPhase::Serving);
        standing.client_ended();
        standing.ended.set(standing.ended.get().map(|since| since - Duration::from_secs(70)));
        standing.client_ended();
        assert_eq!(left(&standing), Some(5.0));
        standing.wrote(true);
        assert_eq!(left(&standing), Some(75.0));
    }
}
