//! Timeouts and graceful close for a connection of either protocol.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, sleep_until};

use super::accept::ClientConnection;
use super::connections::ConnectionPlace;
use super::io::ClientStream;
use super::patience::{FAREWELL, NOTHING_DUE};

/// The socket, released by its protocol.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) stream: ClientStream,
    /// Whether the client may still be sending, so that closing at once could destroy the response (RFC 9112
    /// §9.6).
    pub(super) unread: bool,
    pub(super) _place: ConnectionPlace,
}

/// How serving a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As the protocol provides.
    Served,
    /// With an error.
    Failed,
    /// At its deadline.
    Expired,
}

/// Polls a connection until it ends, its deadline passes, or the worker drains and the connection has closed
/// gracefully. `deadline` returns the current deadline; it is passed the end of the farewell period once that
/// has begun. `farewell` starts the protocol's graceful close, and returns whether it is worth waiting for.
///
/// The timer is only moved when the deadline comes nearer, so a connection that serves one request after
/// another never touches it.
pub(super) async fn drive<C: Future<Output = Result<(), E>>, E>(
    connection: &ClientConnection,
    mut served: Pin<&mut C>,
    deadline: impl Fn(Option<Instant>) -> Option<Instant>,
    farewell: impl Fn(Pin<&mut C>) -> bool,
) -> End {
    let mut drained = pin!(connection.worker.drained());
    let mut timer = pin!(sleep_until(deadline(None).unwrap_or_else(next_idle_check)));
    let (mut draining, mut leaving) = (false, None);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = served.as_mut().poll(cx) {
                return Poll::Ready(if outcome.is_ok() { End::Served } else { End::Failed });
            }
            if !draining && drained.as_mut().poll(cx).is_ready() {
                draining = true;
                if farewell(served.as_mut()) {
                    leaving = Some(Instant::now() + FAREWELL);
                }
                continue;
            }
            let now_due = deadline(leaving);
            if now_due.is_some_and(|due| due < timer.deadline()) {
                timer.as_mut().reset(now_due.unwrap_or_else(next_idle_check));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match now_due {
                Some(due) if due > timer.deadline() => timer.as_mut().reset(due),
                None => timer.as_mut().reset(next_idle_check()),
                Some(_) if leaving.is_some() || !farewell(served.as_mut()) => {
                    return Poll::Ready(End::Expired);
                }
                Some(_) => leaving = Some(Instant::now() + FAREWELL),
            }
        }
    })
    .await
}

/// When to check again while nothing is due.
fn next_idle_check() -> Instant {
    Instant::now() + NOTHING_DUE
}
