//! HTTP/2 with the upstream: many requests on one connection per worker (RFC 9113).
//!
//! Uses the `h2` crate directly: bodies are driven by the request's own future and body, without a task for
//! each.
//!
//! Never sends PING: gRPC servers treat PINGs on quiet streams as abuse and close the connection. TCP detects
//! a vanished peer (keepalive, user timeout), and a connection on which nothing was received while a request
//! timed out gets no further requests.

pub(crate) mod download;
pub(crate) mod exchange;
mod upload;

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::ForwardError;
use super::io::Io;

/// How much the upstream may send on one stream before it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How much it may send on all streams of a connection.
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Maximum size of a response head, as for HTTP/1.1.
const MAX_HEAD: u32 = 64 * 1024;
/// How much of a stream is buffered towards the upstream.
const SEND_BUFFER: usize = 64 * 1024;

/// One worker's HTTP/2 connections to one endpoint.
#[derive(Default)]
pub(crate) struct Http2Pool(RefCell<Vec<Rc<Http2Connection>>>);

/// A connection shared by many requests.
struct Http2Connection {
    sender: SendRequest<Bytes>,
    /// Bytes read from the upstream so far.
    received: Rc<Cell<u64>>,
    streams: Cell<usize>,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
    idle_timeout: Duration,
    /// Whether it gets no further requests, and closes with its last stream.
    retired: Cell<bool>,
    closed: Cell<bool>,
    /// The waker of the task that moves the frames.
    driver: RefCell<Option<Waker>>,
    /// Whether that task waits for the end of the last stream.
    awaits_end: Cell<bool>,
}

/// The right to use one stream of a connection.
pub(crate) struct StreamSlot(Rc<Http2Connection>);

impl StreamSlot {
    fn new(connection: &Rc<Http2Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }

    fn sender(&self) -> SendRequest<Bytes> {
        self.0.sender.clone()
    }

    /// The number of bytes received on this connection.
    fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// Excludes this connection from further requests.
    fn retire(&self) {
        self.0.retired.set(true);
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.streams.set(connection.streams.get() - 1);
        if connection.streams.get() == 0 {
            connection.idle_since.set(Instant::now());
            if connection.awaits_end.take() || connection.retired.get() {
                connection.driver.borrow().iter().for_each(Waker::wake_by_ref);
            }
        }
    }
}

impl Http2Pool {
    /// Takes a stream on an open connection that allows another one.
    pub(crate) fn take(&self) -> Option<StreamSlot> {
        let mut open = self.0.borrow_mut();
        open.retain(|connection| connection.is_usable());
        open.iter().find(|connection| connection.has_room()).map(StreamSlot::new)
    }

    /// How many streams a connection allows, as far as known.
    pub(crate) fn streams_each(&self) -> Option<usize> {
        self.0.borrow().iter().map(|connection| connection.sender.current_max_send_streams()).max()
    }

    /// Starts HTTP/2 on a new connection.
    pub(crate) async fn add(&self, io: Io, idle_timeout: Duration) -> Result<StreamSlot, ForwardError> {
        let received = Rc::new(Cell::new(0));
        let (sender, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false)
            .handshake(CountedIo { io, received: Rc::clone(&received) })
            .await
            .map_err(|error| ForwardError::Connect(io::Error::other(error)))?;
        let connection = Rc::new(Http2Connection {
            sender,
            received,
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            idle_timeout,
            retired: Cell::new(false),
            closed: Cell::new(false),
            driver: RefCell::default(),
            awaits_end: Cell::new(false),
        });
        self.0.borrow_mut().push(Rc::clone(&connection));
        let slot = StreamSlot::new(&connection);
        drop(tokio::task::spawn_local(drive(driver, connection)));
        Ok(slot)
    }
}

impl Http2Connection {
    /// Whether it is neither closed nor about to close, and has received no GOAWAY.
    fn is_usable(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.closed.get() && !self.retired.get() && !matches!(ready, Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.sender.current_max_send_streams()
    }

    /// Ready when no stream has been open for `idle_timeout`, or a retired connection has none. The timer is
    /// reset only when it fires too early, not with every request.
    fn poll_unused(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        loop {
            if self.retired.get() {
                return if self.streams.get() == 0 { Poll::Ready(()) } else { Poll::Pending };
            }
            ready!(timer.as_mut().poll(cx));
            if self.streams.get() > 0 {
                self.awaits_end.set(true);
                return Poll::Pending;
            }
            match self.idle_since.get().checked_add(self.idle_timeout) {
                Some(end) if end > Instant::now() => timer.as_mut().reset(end),
                Some(_) => return Poll::Ready(()),
                None => return Poll::Pending,
            }
        }
    }
}

/// Moves a connection's frames until either side closes it.
async fn drive(driver: h2::client::Connection<CountedIo, Bytes>, connection: Rc<Http2Connection>) {
    let mut driver = pin!(driver);
    let mut timer = pin!(tokio::time::sleep(connection.idle_timeout));
    poll_fn(|cx| {
        connection.driver.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        match driver.as_mut().poll(cx) {
            Poll::Ready(_ended) => Poll::Ready(()),
            Poll::Pending => connection.poll_unused(cx, timer.as_mut()),
        }
    })
    .await;
    connection.closed.set(true);
}

/// A connection that counts what it reads.
struct CountedIo {
    io: Io,
    received: Rc<Cell<u64>>,
}

impl AsyncRead for CountedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        this.received.set(this.received.get() + (buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
