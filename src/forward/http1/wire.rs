//! The bytes of an HTTP/1.1 connection to an upstream: its socket and its buffers, for as many exchanges as it lives.
//!
//! Moves bytes; knows nothing of messages.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use super::encode::Outbox;
use crate::forward::io::Io;

/// What a read asks for at first; doubled whenever a read fills it.
const READ_SIZE: usize = 8 * 1024;
/// What a read asks for at most.
const MAX_READ_SIZE: usize = 64 * 1024;
/// Room below this is not worth a read.
const MIN_ROOM: usize = 1024;

/// A socket, what was read from it, and what is to be written.
pub(crate) struct Http1Wire {
    io: Io,
    /// What was read and not yet taken.
    pub(crate) inbox: BytesMut,
    /// What is to be written.
    pub(crate) outbox: Outbox,
    /// Bytes were written that TLS may still hold.
    unflushed: bool,
    read_size: usize,
}

impl Http1Wire {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, inbox: BytesMut::new(), outbox: Outbox::default(), unflushed: false, read_size: READ_SIZE }
    }

    /// Whether nothing is left over, neither read nor to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_empty()
    }

    /// Gives back what a large body made grow.
    pub(crate) fn shrink(&mut self) {
        self.read_size = READ_SIZE;
        if self.inbox.capacity() > 2 * READ_SIZE {
            self.inbox = BytesMut::new();
        }
    }

    /// Whether the idle connection is still open. `surely`: the kernel is asked.
    pub(crate) fn poll_open(&mut self, surely: bool) -> bool {
        self.io.poll_quiet() && (!surely || self.io.is_surely_quiet())
    }

    /// The bare transport, with what was read from it and not taken.
    pub(crate) fn into_parts(self) -> (Io, Bytes) {
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
