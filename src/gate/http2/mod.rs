//! HTTP/2 with clients: accepts streams, runs a task for each, and closes connections without losing a
//! request (RFC 9113).
//!
//! Uses h2 directly instead of hyper, which gives neither the error code of a closed connection nor control
//! over a stream that a client does not read.

mod preface;
mod stream;
mod tasks;
mod trailers;
mod upload;
mod wire;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, Reason};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::GateLimits;
use super::accept::ClientConnection;
use super::body::Serving;
use super::connections::ConnectionPlace;
use super::io::ClientStream;
use super::patience::{FAREWELL, PING_INTERVAL, PING_TIMEOUT};
use super::serve::{End, drive};

use self::preface::refuse;
use self::stream::AcceptedStream;
use self::wire::{Http2Wire, WatchedSocket};

pub(super) use self::tasks::StreamTasks;
pub(super) use self::upload::StreamUpload;

/// Flow-control windows: what a client may send on a stream, and on a connection, before it is read.
const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);
/// How much of a response is buffered for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// h2 answers a header list above its own limit without the gate's involvement. Its limit is this many times
/// `header_bytes`, so that the gate can refuse a list above `header_bytes` as it does over HTTP/1.1.
const LISTS: usize = 4;
/// Maximum number of streams that a client may reset beyond those it waits for. A client that does so on
/// purpose makes the gate work for nothing ("rapid reset", CVE-2023-44487).
const RESETS: usize = 100;

type H2Connection = h2::server::Connection<WatchedSocket, Bytes>;

/// Serves one connection.
pub(super) async fn serve(connection: Rc<ClientConnection>, stream: ClientStream, place: ConnectionPlace) {
    let generation = connection.worker.generation();
    let limits = &generation.live.settings.limits;
    let (builder, idle) = (builder(limits), limits.idle_connection_timeout);
    drop(generation);
    let wire = Http2Wire::new();
    let socket = WatchedSocket::new(stream, Rc::clone(&wire), place);
    // Boxed like its outcome, so that neither has a place in the future of the connection.
    let shaking = Box::pin(shake_hands(&connection, &wire, builder, socket, idle));
    let Some(mut h2) = shaking.await else { return };
    let streams = Cell::new(false);
    let mut accepting = Box::pin(Accepting {
        connection: &connection,
        wire: &wire,
        idle,
        streams: &streams,
        pulse: Pulse::new(h2.ping_pong()),
        ended: false,
        h2,
    });
    let deadline = |leaving: Option<Instant>| due(&connection, &wire, idle, streams.get(), leaving);
    let farewell = |mut accepting: Pin<&mut Accepting<'_>>| {
        accepting.h2.graceful_shutdown();
        // A client that does not read what is written will not see the farewell.
        wire.stalled_since().is_none()
    };
    let mut end = drive(&connection, accepting.as_mut(), deadline, farewell).await;
    if end == End::Expired && wire.stalled_since().is_none() {
        // The client has not closed after the farewell: the last GOAWAY names the streams that were served
        // (RFC 9113 §6.8).
        accepting.h2.abrupt_shutdown(Reason::NO_ERROR);
        if let Ok(Ok(())) = timeout(FAREWELL, accepting.as_mut()).await {
            end = End::Served;
        }
    }
    drop(accepting);
    if let (Some(mut returned), End::Served) = (wire.take_back().filter(|returned| returned.unread), end) {
        // h2 has closed this side.
        returned.stream.linger().await;
    }
}

/// Exchanges prefaces with the client; answers one that is no HTTP/2.
async fn shake_hands(
    connection: &ClientConnection,
    wire: &Rc<Http2Wire>,
    builder: h2::server::Builder,
    socket: WatchedSocket,
    limit: Duration,
) -> Option<Box<H2Connection>> {
    // In a block of its own, because the socket comes back when the handshake is dropped.
    let shaken = {
        let mut shaking = pin!(timeout(limit, builder.handshake(socket)));
        let handshake = poll_fn(|cx| {
            wire.begin_turn();
            shaking.as_mut().poll(cx)
        });
        let drained = async {
            connection.worker.drained().await;
            sleep(FAREWELL).await;
        };
        tokio::select! {
            shaken = handshake => shaken.ok()?,
            () = drained => return None,
        }
    };
    match shaken {
        Ok(h2) => Some(Box::new(h2)),
        Err(error) => {
            let returned = if error.is_io() { None } else { wire.take_back() };
            if let Some(returned) = returned {
                refuse(returned).await;
            }
            None
        }
    }
}

fn builder(limits: &GateLimits) -> h2::server::Builder {
    let list = limits.header_bytes.saturating_mul(LISTS);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.http2_streams)
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .initial_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// The deadline for a client that reads nothing, or has no request. After the farewell, which takes two
/// GOAWAYs so that no request on its way is lost (RFC 9113 §6.8), requests are still served.
fn due(
    connection: &ClientConnection,
    wire: &Http2Wire,
    idle: Duration,
    has_streams: bool,
    leaving: Option<Instant>,
) -> Option<Instant> {
    if let Some(stalled) = wire.stalled_since() {
        return stalled.checked_add(idle);
    }
    if connection.requests.get() > 0 {
        return None;
    }
    let since = connection.idle_since.get();
    match leaving {
        // The ends of responses are still being sent.
        _ if has_streams => since.max(wire.wrote_at()).checked_add(idle),
        Some(last) => Some(last.max(since + FAREWELL)),
        None => since.checked_add(idle),
    }
}

/// Accepts requests, each in a task of its own, until the connection ends.
struct Accepting<'a> {
    connection: &'a Rc<ClientConnection>,
    wire: &'a Rc<Http2Wire>,
    idle: Duration,
    /// Whether there are streams, even if only the end of a response is still being sent.
    streams: &'a Cell<bool>,
    pulse: Pulse,
    /// Whether the client was sent ENHANCE_YOUR_CALM.
    ended: bool,
    h2: Box<H2Connection>,
}

impl Future for Accepting<'_> {
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.wire.begin_turn();
        loop {
            match this.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok(stream))) => this.begin(stream),
                Poll::Ready(Some(Err(error))) if error.is_io() => return Poll::Ready(Err(error)),
                // The client was sent the reason and needs time to read it.
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Ok(())),
                Poll::Pending if this.connection.resets.get() > RESETS && !this.ended => {
                    this.ended = true;
                    this.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                Poll::Pending => break,
            }
        }
        this.streams.set(this.h2.has_streams());
        this.pulse.poll_dead(this.wire, cx).map(|()| Err(Reason::NO_ERROR.into()))
    }
}

impl Accepting<'_> {
    fn begin(&self, (request, respond): (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>)) {
        let connection = Rc::clone(self.connection);
        let serving = Serving::new(Rc::clone(&connection));
        let (wire, patience) = (Rc::clone(self.wire), self.idle);
        let stream = AcceptedStream { connection, wire, request, respond, serving, patience };
        self.connection.worker.stream_tasks.serve(stream);
    }
}

/// Pings a silent peer to find out whether it is still there.
struct Pulse {
    pings: Option<PingPong>,
    /// Whether a pong is awaited.
    asked: bool,
    timer: Pin<Box<Sleep>>,
}

impl Pulse {
    fn new(pings: Option<PingPong>) -> Self {
        Self { pings, asked: false, timer: Box::pin(sleep(PING_INTERVAL)) }
    }

    /// Ready when the peer has not answered a ping.
    fn poll_dead(&mut self, wire: &Http2Wire, cx: &mut Context<'_>) -> Poll<()> {
        let (interval, patience) = (PING_INTERVAL, PING_TIMEOUT);
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let heard = wire.take_heard();
            if self.asked && !heard {
                return Poll::Ready(());
            }
            self.asked = !heard && self.ping(cx);
            let next = if self.asked { patience } else { interval };
            self.timer.as_mut().reset(Instant::now() + next);
        }
    }

    fn ping(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pings) = &mut self.pings else { return false };
        // The response to the last ping makes space for the next.
        let answered = pings.poll_pong(cx);
        drop(answered);
        pings.send_ping(Ping::opaque()).is_ok()
    }
}
