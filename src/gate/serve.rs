//! Timeouts and an orderly end for a connection of either protocol.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, sleep_until};

use super::accept::ClientConnection;
use super::connections::ConnectionPlace;
use super::io::ClientStream;
use super::patience::{FAREWELL, NOTHING_DUE};

/// The socket after its protocol is done with it.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) stream: ClientStream,
    /// The client may still be sending, so that closing at once could take the response away from it (RFC 9112 §9.6).
    pub(super) unread: bool,
    pub(super) _place: ConnectionPlace,
}

/// How serving came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In the ways of the protocol.
    Served,
    /// With an error.
    Failed,
    /// Out of patience.
    Expired,
}

/// Polls a connection until it ends, its patience does, or, without haste, the worker drains. `deadline` says when
/// patience ends; once its farewell has begun, it is given the moment that this lasts to. `farewell` begins the
/// protocol's own way to end and tells whether it is worth waiting for once patience is gone.
///
/// The timer is moved only when a deadline comes nearer: a connection that serves one request after the other never
/// touches it.
pub(super) async fn drive<C: Future<Output = Result<(), E>>, E>(
    connection: &ClientConnection,
    mut served: Pin<&mut C>,
    deadline: impl Fn(Option<Instant>) -> Option<Instant>,
    farewell: impl Fn(Pin<&mut C>) -> bool,
) -> End {
    let mut drained = pin!(connection.worker.drained());
    let mut timer = pin!(sleep_until(deadline(None).unwrap_or_else(far)));
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
                timer.as_mut().reset(now_due.unwrap_or_else(far));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match now_due {
                Some(due) if due > timer.deadline() => timer.as_mut().reset(due),
                None => timer.as_mut().reset(far()),
                Some(_) if leaving.is_some() || !farewell(served.as_mut()) => {
                    return Poll::Ready(End::Expired);
                }
                Some(_) => leaving = Some(Instant::now() + FAREWELL),
            }
        }
    })
    .await
}

/// When to look again while nothing is due.
fn far() -> Instant {
    Instant::now() + NOTHING_DUE
}
