//! One connection from its first byte to its last: hyper's HTTP/1.1 or HTTP/2, patience, and a decent end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use super::Limits;
use super::accept::Connection;
use super::connections::Place;
use super::framing::{self, Framing};
use super::http;
use super::io::{Socket, Stream};
use super::link::{Link, Patience, Phase};

/// How long a client may take to read the last answer, and how much of what it still sends is read meanwhile.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 16 * 1024 * 1024);
/// How long a client that has ended its side is served while nothing flows: it has probably gone away.
const HALF_CLOSED: Duration = Duration::from_secs(2);
/// How long an idle connection has for the farewell of its protocol.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// hyper's smallest read buffer, and what it may hold beyond a head of the greatest length.
const READ_BUFFER: (usize, usize) = (8 * 1024, 1024);
/// hyper keeps this many fields of a head without an allocation.
const FIELDS_ON_STACK: usize = 100;
/// How often a peer of HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));
/// Flow control windows of HTTP/2: what a stream, and a connection, may send before it is read.
const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);
/// What HTTP/2 buffers of one answer for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves HTTP/1.1.
pub(super) async fn http1(connection: Rc<Connection>, stream: Stream, place: Place) {
    let generation = connection.worker.generation();
    let limits = &generation.live.settings.limits;
    let patience =
        Patience { head: limits.header_timeout, idle: limits.idle_connection_timeout, ended: HALF_CLOSED };
    let (link, builder) = (Link::new(), http1_builder(limits));
    let framing = Framing::new(framing::Limits { bytes: limits.header_bytes, fields: limits.headers });
    drop(generation);
    let socket = TokioIo::new(Socket::new(stream, framing, Arc::clone(&link), place));
    let service = service_fn(|request| {
        link.serving();
        let visit = http::serve(Rc::clone(&connection), Some(Arc::clone(&link)), request);
        let visit = Box::pin(visit);
        async move { Ok::<_, Infallible>(visit.await) }
    });
    let mut served = Box::pin(builder.serve_connection(socket, service).with_upgrades());
    let deadline = || link.deadline(patience);
    let farewell = |served: Pin<&mut _>| {
        http1::UpgradeableConnection::graceful_shutdown(served);
        link.phase() == Phase::Waiting
    };
    let end = drive(&connection, served.as_mut(), deadline, farewell).await;
    drop(served);
    finish(&connection, &link, end).await;
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

/// Writes the answer that hyper could not, and lets the client read the last answer before the connection closes.
async fn finish(connection: &Rc<Connection>, link: &Link, end: End) {
    let (Some(mut returned), true) = (link.take_back(), end != End::Expired) else { return };
    // An answer that was cut short must not look as if another one followed it.
    let whole = matches!(link.phase(), Phase::Waiting | Phase::Head);
    let broken = link.broken().filter(|broken| broken.unanswered && whole);
    if broken.is_none() && !(returned.unread && end == End::Served) {
        return;
    }
    let answer = broken.map(|broken| http::refuse_unread(connection, &broken));
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

/// Serves HTTP/2.
pub(super) async fn http2(connection: Rc<Connection>, stream: Stream, place: Place) {
    let generation = connection.worker.generation();
    let (builder, idle) = {
        let limits = &generation.live.settings.limits;
        (http2_builder(limits), limits.idle_connection_timeout)
    };
    drop(generation);
    let service = service_fn(|request| {
        let visit = Box::pin(http::serve(Rc::clone(&connection), None, request));
        async move { Ok::<_, Infallible>(visit.await) }
    });
    let link = Link::new();
    link.switched();
    let socket = TokioIo::new(Socket::new(stream, Framing::none(), Arc::clone(&link), place));
    let mut served = Box::pin(builder.serve_connection(socket, service));
    let deadline = || match connection.requests.get() {
        0 => connection.idle_since.get().checked_add(idle),
        _ => None,
    };
    let farewell = |served: Pin<&mut _>| {
        http2::Connection::graceful_shutdown(served);
        true
    };
    let end = drive(&connection, served.as_mut(), deadline, farewell).await;
    drop(served);
    finish(&connection, &link, end).await;
}

fn http2_builder(limits: &Limits) -> http2::Builder<Local> {
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    builder
}

/// How serving came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// In the ways of the protocol.
    Served,
    /// With an error.
    Failed,
    /// Out of patience.
    Expired,
}

/// Polls a connection until it ends, its patience does, or, without haste, the worker drains. `farewell` begins the
/// protocol's own way to end and tells whether it is worth waiting for once patience is gone.
///
/// The timer is moved only when a deadline comes nearer: a connection that serves one request after the other never
/// touches it.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: &Connection,
    mut served: Pin<&mut C>,
    deadline: impl Fn() -> Option<Instant>,
    farewell: impl Fn(Pin<&mut C>) -> bool,
) -> End {
    let mut drained = pin!(connection.worker.drained());
    let mut timer = pin!(sleep_until(deadline().unwrap_or_else(far)));
    let (mut draining, mut leaving) = (false, None);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = served.as_mut().poll(cx) {
                return Poll::Ready(if outcome.is_ok() { End::Served } else { End::Failed });
            }
            if !draining && drained.as_mut().poll(cx).is_ready() {
                draining = true;
                farewell(served.as_mut());
                continue;
            }
            let now_due = leaving.or_else(&deadline);
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
                Some(_) => {
                    let last = Instant::now() + FAREWELL;
                    leaving = Some(last);
                    timer.as_mut().reset(last);
                }
            }
        }
    })
    .await
}

/// When to look again while nothing is due.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Runs what HTTP/2 serves in parallel on this worker's own thread; a panic ends one request only.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F> Executor<F> for Local
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        drop(spawn_local(future));
    }
}
