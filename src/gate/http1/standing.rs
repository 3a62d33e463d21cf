//! The state of an HTTP/1.1 connection, and how long its client may stay in it.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// What a connection is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// No byte of a request has come.
    Waiting,
    /// A head has begun.
    Head,
    /// A request is being served, up to the last byte of its response.
    Serving,
    /// It is no longer HTTP.
    Tunnel,
}

/// How long each phase may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of a request, from its first byte or the end of the previous answer.
    pub(super) head: Duration,
    /// Without a request, for a client that does not read its response, and for one that has ended its side and to
    /// which nothing flows: it may have gone away, or wait for a slow answer.
    pub(super) idle: Duration,
}

/// Where a connection stands, and since when.
#[derive(Debug)]
pub(super) struct ConnectionStanding {
    phase: Cell<ConnectionPhase>,
    since: Cell<Instant>,
    /// When the client stopped taking bytes; `None` while it takes them.
    stalled: Cell<Option<Instant>>,
    /// When something last flowed to a client that has ended its side.
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

    /// Enters another phase; nothing happens to one that lasts.
    pub(super) fn enter(&self, phase: ConnectionPhase) {
        if self.phase.replace(phase) != phase
            && matches!(phase, ConnectionPhase::Waiting | ConnectionPhase::Head)
        {
            self.since.set(Instant::now());
        }
    }

    /// A write did, or did not, find room.
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

    /// The client has ended its side.
    pub(super) fn client_ended(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(Instant::now()));
        }
    }

    /// When patience ends, as things stand; `None` as long as the client is not to blame for what takes time.
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

    /// A connection that was opened a while ago.
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
