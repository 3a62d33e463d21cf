//! One HTTP/1.1 connection to an upstream: its socket, its buffers, its alarm clock.
//!
//! Moves bytes; knows nothing of messages.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::time::{Instant, Sleep};

use super::encode::Outbox;
use crate::forward::body::RequestBodyError;
use crate::forward::upstream::Io;

/// What a read asks for at first; doubled whenever a read fills it.
const READ_SIZE: usize = 8 * 1024;
/// What a read asks for at most.
const MAX_READ_SIZE: usize = 64 * 1024;
/// Room below this is not worth a read.
const MIN_ROOM: usize = 1024;

/// A connection that serves one exchange at a time.
pub(crate) struct Connection {
    io: Io,
    /// What was read and not yet taken.
    pub(crate) inbox: BytesMut,
    /// What is to be written.
    pub(crate) outbox: Outbox,
    /// Bytes were written that TLS may still hold.
    unflushed: bool,
    read_size: usize,
    /// How long the exchange may take.
    pub(crate) alarm: Alarm,
    /// A byte was read since the exchange began.
    pub(crate) answered: bool,
    /// The request has been sent to its end.
    pub(crate) request_sent: bool,
    /// Why the rest of the request cannot be sent, for whoever reads the answer.
    pub(crate) failure: Option<RequestBodyError>,
    /// Whoever reads the answer.
    pub(crate) reader: Option<Waker>,
}

impl Connection {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            io,
            inbox: BytesMut::new(),
            outbox: Outbox::default(),
            unflushed: false,
            read_size: READ_SIZE,
            alarm: Alarm::default(),
            answered: false,
            request_sent: false,
            failure: None,
            reader: None,
        }
    }

    /// Readies the connection for a new exchange that must be answered within `limit`.
    pub(crate) fn begin(&mut self, limit: Duration) {
        self.answered = false;
        self.request_sent = false;
        self.alarm.set(limit);
    }

    /// Whether the connection can serve another exchange: the last one is complete on both sides, nothing is left over.
    pub(crate) fn is_clean(&self) -> bool {
        self.request_sent && self.inbox.is_empty() && self.outbox.is_empty()
    }

    /// Gives back what a large body made grow.
    pub(crate) fn rest(&mut self) {
        self.read_size = READ_SIZE;
        self.reader = None;
        if self.inbox.capacity() > 2 * READ_SIZE {
            self.inbox = BytesMut::new();
        }
    }

    pub(crate) fn is_quiet(&mut self) -> bool {
        self.io.is_quiet()
    }

    pub(crate) fn is_surely_quiet(&mut self) -> bool {
        self.io.is_quiet() && self.io.is_surely_quiet()
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
        self.answered |= count > 0;
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

/// A deadline that is cheap to move: the timer itself is touched only when it goes off too early, which on a busy
/// connection is once per limit and not once per request.
#[derive(Default)]
pub(crate) struct Alarm {
    limit: Duration,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Goes off in `limit` from now.
    pub(crate) fn set(&mut self, limit: Duration) {
        self.limit = limit;
        self.restart();
    }

    /// Goes off a whole limit from now, because there was progress.
    pub(crate) fn restart(&mut self) {
        // A limit beyond the end of time is none.
        self.deadline = Instant::now().checked_add(self.limit);
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
