//! The socket that h2 reads and writes through; records what the connection's task needs to know about it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::trailers::TrailerWatch;
use crate::gate::connections::ConnectionPlace;
use crate::gate::io::ClientStream;
use crate::gate::serve::Returned;

/// Maximum number of streams remembered as malformed. A client above it only deceives h2, which ignores such
/// fields.
const MAX_MALFORMED: usize = 1000;

/// The state of an HTTP/2 connection's socket.
#[derive(Debug)]
pub(super) struct Http2Wire {
    /// When the client stopped reading; `None` while it reads.
    stalled: Cell<Option<Instant>>,
    /// When it last read something.
    wrote: Cell<Instant>,
    /// Whether anything was received since this was last asked.
    heard: Cell<bool>,
    /// Whether the socket has nothing more to read in this turn of the connection's task, whose waker is
    /// registered.
    is_dry: Cell<bool>,
    /// Whether the layers below may hold data that a flush writes.
    unflushed: Cell<bool>,
    /// Streams whose trailers contain a pseudo-header field.
    malformed: RefCell<Vec<u32>>,
    returned: RefCell<Option<Returned>>,
}

impl Http2Wire {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            stalled: Cell::new(None),
            wrote: Cell::new(Instant::now()),
            heard: Cell::new(false),
            is_dry: Cell::new(false),
            unflushed: Cell::new(true),
            malformed: RefCell::default(),
            returned: RefCell::default(),
        })
    }

    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled.get()
    }

    pub(super) fn wrote_at(&self) -> Instant {
        self.wrote.get()
    }

    /// Starts a turn of the connection's task. h2 reads and flushes for each request that it hands out;
    /// within one turn, the layers below are polled only until they are pending.
    pub(super) fn begin_turn(&self) {
        self.is_dry.set(false);
    }

    /// Whether anything was received since the last call.
    pub(super) fn take_heard(&self) -> bool {
        self.heard.replace(false)
    }

    /// Whether the trailers on this stream make its request malformed.
    pub(super) fn is_malformed(&self, stream: u32) -> bool {
        self.malformed.borrow().contains(&stream)
    }

    /// Forgets a stream that has ended.
    pub(super) fn forget(&self, stream: u32) {
        self.malformed.borrow_mut().retain(|&malformed| malformed != stream);
    }

    /// The socket, once h2 has released it.
    pub(super) fn take_back(&self) -> Option<Returned> {
        self.returned.borrow_mut().take()
    }

    fn note_malformed(&self, stream: u32) {
        let mut malformed = self.malformed.borrow_mut();
        if malformed.len() < MAX_MALFORMED {
            malformed.push(stream);
        }
    }

    fn note_write(&self, done: bool) {
        self.unflushed.set(true);
        if done {
            self.stalled.set(None);
            self.wrote.set(Instant::now());
        } else if self.stalled.get().is_none() {
            self.stalled.set(Some(Instant::now()));
        }
    }
}

/// A client's connection as h2 sees it. Returns the stream to the wire on drop, however h2 ended.
#[derive(Debug)]
pub(super) struct WatchedSocket {
    stream: Option<ClientStream>,
    wire: Rc<Http2Wire>,
    trailers: TrailerWatch,
    closed: bool,
    place: Option<ConnectionPlace>,
}

impl WatchedSocket {
    pub(super) fn new(stream: ClientStream, wire: Rc<Http2Wire>, place: ConnectionPlace) -> Self {
        let trailers = TrailerWatch::new();
        Self { stream: Some(stream), wire, trailers, closed: false, place: Some(place) }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut ClientStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.wire.is_dry.get() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = this.stream()?.poll_read(cx, buf);
        let wire = &this.wire;
        wire.is_dry.set(polled.is_pending());
        ready!(polled)?;
        let read = buf.filled().get(before..).unwrap_or_default();
        this.closed = read.is_empty();
        wire.heard.set(true);
        // TLS answers some messages by itself.
        wire.unflushed.set(true);
        this.trailers.feed(read, |stream| wire.note_malformed(stream));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write(cx, buf);
        this.wire.note_write(written.is_ready());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write_vectored(cx, bufs);
        this.wire.note_write(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.wire.unflushed.get() {
            return Poll::Ready(Ok(()));
        }
        let flushed = this.stream()?.poll_flush(cx);
        if flushed.is_pending() {
            this.wire.note_write(false);
        }
        this.wire.unflushed.set(!matches!(flushed, Poll::Ready(Ok(()))));
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(cx)
    }
}

impl Drop for WatchedSocket {
    fn drop(&mut self) {
        if let (Some(stream), Some(place)) = (self.stream.take(), self.place.take()) {
            let returned = Returned { stream, unread: !self.closed, _place: place };
            *self.wire.returned.borrow_mut() = Some(returned);
        }
    }
}
