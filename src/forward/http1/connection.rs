//! One HTTP/1.1 connection to an upstream: the wire, and the progress of its current exchange.

use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::forward::alarm::Alarm;
use crate::forward::body::RequestBodyError;
use crate::forward::io::Io;
use crate::http1::Http1Wire;

/// A connection that serves one exchange at a time.
pub(crate) struct Http1Connection {
    pub(crate) wire: Http1Wire<Io>,
    /// The time limit of the exchange.
    pub(crate) alarm: Alarm,
    /// Whether any byte of the response was received.
    pub(crate) answered: bool,
    /// Whether the request was sent completely.
    pub(crate) request_sent: bool,
    /// Why the rest of the request cannot be sent, for the task that reads the response.
    pub(crate) failure: Option<RequestBodyError>,
    /// The task that reads the response.
    pub(crate) reader: Option<Waker>,
}

impl Http1Connection {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            wire: Http1Wire::new(io),
            alarm: Alarm::new(),
            answered: false,
            request_sent: false,
            failure: None,
            reader: None,
        }
    }

    /// Prepares for a new exchange that must be answered within `limit`.
    pub(crate) fn begin(&mut self, limit: Duration) {
        self.answered = false;
        self.request_sent = false;
        self.alarm.set(limit);
    }

    /// Whether the connection can serve another exchange: the last one is complete on both sides, and no
    /// bytes remain.
    pub(crate) fn is_clean(&self) -> bool {
        self.request_sent && self.wire.is_empty()
    }

    /// Whether the idle connection is still open. With `ask_kernel`, asks the kernel.
    pub(crate) fn poll_open(&mut self, ask_kernel: bool) -> bool {
        let io = self.wire.io_mut();
        io.poll_quiet() && (!ask_kernel || io.is_surely_quiet())
    }

    /// Prepares the connection for the pool.
    pub(crate) fn prepare_for_pool(&mut self) {
        self.reader = None;
        self.wire.shrink();
    }

    /// Reads more of the response; 0 is the end of the connection.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let count = ready!(self.wire.poll_fill(cx))?;
        self.answered |= count > 0;
        Poll::Ready(Ok(count))
    }
}
