//! A socket and its buffers, for as many exchanges as it lives.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::Outbox;

/// What a read asks for at first; doubled whenever a read fills it.
const READ_SIZE: usize = 8 * 1024;
/// What a read asks for at most.
const MAX_READ_SIZE: usize = 64 * 1024;
/// Room below this is not worth a read.
const MIN_ROOM: usize = 1024;

/// A socket, what was read from it, and what is to be written.
#[derive(Debug)]
pub(crate) struct Http1Wire<S> {
    io: S,
    /// What was read and not yet taken.
    pub(crate) inbox: BytesMut,
    /// What is to be written.
    pub(crate) outbox: Outbox,
    /// Bytes were written that TLS may still hold.
    unflushed: bool,
    read_size: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Wire<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, inbox: BytesMut::new(), outbox: Outbox::default(), unflushed: false, read_size: READ_SIZE }
    }

    /// Whether nothing is left over, neither read nor to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_empty()
    }

    /// Whether something is to be written, or may still lie in the buffers of TLS.
    pub(crate) fn is_writing(&self) -> bool {
        self.unflushed || !self.outbox.is_empty()
    }

    /// Gives back what a large body made grow.
    pub(crate) fn shrink(&mut self) {
        self.read_size = READ_SIZE;
        if self.inbox.capacity() > 2 * READ_SIZE {
            self.inbox = BytesMut::new();
        }
    }

    /// Gives back an empty inbox, so that a connection at rest takes no memory for it.
    pub(crate) fn rest(&mut self) {
        if self.inbox.is_empty() {
            self.inbox = BytesMut::new();
        }
    }

    /// The socket itself.
    pub(crate) fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// The bare transport, with what was read from it and not taken.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.io, self.inbox.freeze())
    }

    /// Reads into the inbox; 0 is the end of the connection.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() - self.inbox.len() < MIN_ROOM {
            self.inbox.reserve(self.read_size);
        }
        let room = self.inbox.capacity() - self.inbox.len();
        let read = pin!(self.io.read_buf(&mut self.inbox));
        let count = ready!(std::future::Future::poll(read, cx))?;
        if count == room {
            self.read_size = (self.read_size * 2).min(MAX_READ_SIZE);
        }
        Poll::Ready(Ok(count))
    }

    /// Writes the outbox to its end.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let slices = self.outbox.slices();
            let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(count);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
