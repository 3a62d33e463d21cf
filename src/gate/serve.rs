//! One HTTP/1.1 connection from its first byte to its last; patience and a decent end for either protocol.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until, timeout};

use super::Limits;
use super::accept::Connection;
use super::body::{ClientBody, Serving};
use super::connections::Place;
use super::framing::{self, Framing};
use super::http;
use super::io::{Socket, Stream};
use super::link::{Link, Patience, Phase, Returned};

/// How long a client may take to read the last answer, and how much of what it still sends is read meanwhile.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 16 * 1024 * 1024);
/// How long an idle connection has for the farewell of its protocol.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// hyper's smallest read buffer, and what it may hold beyond a head of the greatest length.
const READ_BUFFER: (usize, usize) = (8 * 1024, 1024);
/// hyper keeps this many fields of a head without an allocation.
const FIELDS_ON_STACK: usize = 100;

/// Serves HTTP/1.1.
pub(super) async fn http1(connection: Rc<Connection>, stream: Stream, place: Place) {
    let generation = connection.worker.generation();
    let limits = &generation.live.settings.limits;
    let patience = Patience { head: limits.header_timeout, idle: limits.idle_connection_timeout };
    let (link, builder) = (Link::new(), http1_builder(limits));
    let framing = Framing::new(framing::Limits { bytes: limits.header_bytes, fields: limits.headers });
    drop(generation);
    let socket = TokioIo::new(Socket::new(stream, framing, Arc::clone(&link), place));
    let service = service_fn(|request: Request<Incoming>| {
        link.serving();
        let serving = Serving::new(Rc::clone(&connection), Some(Arc::clone(&link)));
        let request = request.map(ClientBody::Http1);
        let visit = http::serve(Rc::clone(&connection), Some(Arc::clone(&link)), request, serving);
        let visit = Box::pin(visit);
        async move { Ok::<_, Infallible>(visit.await) }
    });
    let mut served = Box::pin(builder.serve_connection(socket, service).with_upgrades());
    let deadline = |leaving: Option<Instant>| {
        leaving.filter(|_| link.phase() == Phase::Waiting).or_else(|| link.deadline(patience))
    };
    let farewell = |served: Pin<&mut _>| {
        http1::UpgradeableConnection::graceful_shutdown(served);
        link.phase() == Phase::Waiting
    };
    let end = drive(&connection, served.as_mut(), deadline, farewell).await;
    drop(served);
    let returned = link.take_back();
    let whole = matches!(link.phase(), Phase::Waiting | Phase::Head);
    // An answer that was cut short must not look as if another one followed it.
    let broken = link.broken().filter(|broken| broken.unanswered && whole);
    let answer = || broken.map(|broken| http::refuse_unread(&connection, &broken));
    finish(returned, end, answer).await;
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let (smallest, spare) = READ_BUFFER;
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(limits.header_bytes.max(smallest).saturating_add(spare));
    if limits.headers > FIELDS_ON_STACK {
        builder.max_headers(limits.headers);
    }
    builder
}

/// Writes a last answer, and lets the client read it before the connection closes.
pub(super) async fn finish(returned: Option<Returned>, end: End, answer: impl FnOnce() -> Option<Vec<u8>>) {
    let (Some(mut returned), true) = (returned, end != End::Expired) else { return };
    let answer = answer();
    if answer.is_none() && !(returned.unread && end == End::Served) {
        return;
    }
    let (time, bytes) = LINGER;
    let last = async {
        if let Some(answer) = answer {
            returned.stream.write_all(&answer).await?;
            returned.stream.shutdown().await?;
        }
        returned.stream.discard(bytes).await;
        Ok::<_, std::io::Error>(())
    };
    // An error means that the client is gone.
    drop(timeout(time, last).await);
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
    connection: &Connection,
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
    Instant::now() + Duration::from_secs(60)
}
