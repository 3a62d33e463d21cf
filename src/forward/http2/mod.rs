//! HTTP/2 towards the upstream: many requests on one connection per worker (RFC 9113).
//!
//! Speaks to the `h2` crate directly: the bodies are driven by the request's own future and body, without a task each.

pub(crate) mod download;
pub(crate) mod exchange;
mod upload;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::{Instant, MissedTickBehavior};

use super::ForwardError;
use super::upstream::Io;

/// What one stream may have on its way to us unread.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What all streams of a connection may.
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Largest response head, as for HTTP/1.1.
const MAX_HEAD: u32 = 64 * 1024;
/// What a stream may keep that is on its way to the upstream.
const SEND_BUFFER: usize = 64 * 1024;
/// A connection with streams is asked so often whether it is alive, and has as long to say so.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The connections to one upstream.
#[derive(Default)]
pub(crate) struct Connections {
    open: RefCell<Vec<Rc<Connection>>>,
    /// Held while a connection is opened: those who come meanwhile will share it.
    pub(crate) dialing: tokio::sync::Mutex<()>,
}

struct Connection {
    sender: SendRequest<Bytes>,
    streams: Cell<usize>,
    used: Cell<Instant>,
    closed: Cell<bool>,
}

/// The right to one stream of a connection.
pub(crate) struct Slot(Rc<Connection>);

impl Slot {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

impl Connections {
    /// A stream on an open connection that allows another one.
    pub(crate) fn take(&self) -> Option<Slot> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| connection.is_usable());
        open.iter().find(|connection| connection.has_room()).map(Slot::new)
    }

    /// Starts HTTP/2 on a new connection.
    pub(crate) async fn add(&self, io: Io, idle_timeout: Duration) -> Result<Slot, ForwardError> {
        let (sender, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false)
            .handshake(io)
            .await
            .map_err(|error| ForwardError::Connect(io::Error::other(error)))?;
        let connection = Rc::new(Connection {
            sender,
            streams: Cell::new(0),
            used: Cell::new(Instant::now()),
            closed: Cell::new(false),
        });
        self.open.borrow_mut().push(Rc::clone(&connection));
        let slot = Slot::new(&connection);
        drop(tokio::task::spawn_local(drive(driver, connection, idle_timeout)));
        Ok(slot)
    }
}

impl Connection {
    /// Not closed, and no GOAWAY received.
    fn is_usable(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.closed.get() && !matches!(ready, Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.sender.current_max_send_streams()
    }
}

/// Moves a connection's frames until it is closed, unused for `idle_timeout`, or dead.
async fn drive(
    mut driver: h2::client::Connection<Io, Bytes>,
    connection: Rc<Connection>,
    idle_timeout: Duration,
) {
    let mut pings = driver.ping_pong();
    let mut awaiting_pong = false;
    let mut ticks = tokio::time::interval(PING_INTERVAL.min(idle_timeout).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let mut driver = pin!(driver);
    loop {
        tokio::select! {
            _ended = &mut driver => break,
            pong = poll_pong(pings.as_mut()), if awaiting_pong => awaiting_pong = pong.is_err(),
            _ = ticks.tick() => {
                let unused = connection.streams.get() == 0;
                if awaiting_pong || (unused && connection.used.get().elapsed() >= idle_timeout) {
                    break;
                }
                let sent = pings.as_mut().filter(|_| !unused).map(|pings| pings.send_ping(h2::Ping::opaque()));
                awaiting_pong = matches!(sent, Some(Ok(())));
            }
        }
    }
    connection.closed.set(true);
}

async fn poll_pong(pings: Option<&mut h2::PingPong>) -> Result<(), h2::Error> {
    match pings {
        Some(pings) => poll_fn(|cx| pings.poll_pong(cx)).await.map(drop),
        None => Ok(()),
    }
}
