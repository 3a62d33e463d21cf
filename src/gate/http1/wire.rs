//! The byte stream of one client's HTTP/1.1 connection, shared by the connection's task and the body of the
//! current request.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::time::Instant;

use super::encode;
use super::head::{HeadLimits, HeadReader, Http1Fault, RequestHead};
use super::standing::{ConnectionPhase, ConnectionStanding};
use crate::gate::io::ClientStream;
use crate::http1::{Http1Wire, Outbox};

/// Maximum bytes of interim responses that wait for a client that does not read; further ones are dropped.
const MAX_INTERIM: usize = 64 * 1024;

/// The next event on a connection.
#[derive(Debug)]
pub(super) enum NextRequest {
    /// A request.
    Request(RequestHead),
    /// Input that is not acceptable.
    Fault(Http1Fault),
    /// The end of the connection.
    End,
}

/// One client's connection.
#[derive(Debug)]
pub(in crate::gate) struct ClientWire {
    pub(super) standing: ConnectionStanding,
    pub(super) limits: HeadLimits,
    /// Whether the connection closes after the current request; further ones that arrive before are served.
    closing: Cell<bool>,
    /// Whether a request was received.
    used: Cell<bool>,
    /// Whether the client has closed its side.
    ended: Cell<bool>,
    /// Whether the body of the current request has unread bytes.
    unread_body: Cell<bool>,
    /// Whether nothing reads the body.
    body_dropped: Cell<bool>,
    /// Whether the final response has begun, so that no interim one may follow.
    answering: Cell<bool>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    wire: Http1Wire<ClientStream>,
    reader: HeadReader,
    /// The connection's task, while a body that is read elsewhere may have something to write.
    task: Option<Waker>,
}

impl ClientWire {
    pub(super) fn new(stream: ClientStream, limits: HeadLimits) -> Rc<Self> {
        Rc::new(Self {
            standing: ConnectionStanding::new(Instant::now()),
            limits,
            closing: Cell::new(false),
            used: Cell::new(false),
            ended: Cell::new(false),
            unread_body: Cell::new(false),
            body_dropped: Cell::new(false),
            answering: Cell::new(false),
            inner: RefCell::new(Inner {
                wire: Http1Wire::new(stream),
                reader: HeadReader::new(limits),
                task: None,
            }),
        })
    }

    /// Closes the connection after the current request; a new connection still serves its first one.
    pub(super) fn close_after_request(&self) {
        self.closing.set(true);
    }

    /// Waits for the next request.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<io::Result<NextRequest>> {
        let inner = &mut *self.inner.borrow_mut();
        loop {
            match inner.reader.read(&mut inner.wire.inbox) {
                Ok(Some(head)) => {
                    self.used.set(true);
                    return Poll::Ready(Ok(NextRequest::Request(head)));
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Ok(NextRequest::Fault(fault))),
            }
            let waiting = inner.wire.inbox.is_empty();
            if self.ended.get() || (waiting && self.closing.get() && self.used.get()) {
                return Poll::Ready(Ok(NextRequest::End));
            }
            self.standing.enter(if waiting { ConnectionPhase::Waiting } else { ConnectionPhase::Head });
            let Poll::Ready(read) = inner.wire.poll_fill(cx)? else {
                // An idle connection keeps no buffers.
                inner.wire.outbox.release();
                return Poll::Pending;
            };
            self.ended.set(read == 0);
        }
    }

    /// The method of a head that was not read to its end.
    pub(super) fn method(&self) -> Method {
        self.inner.borrow().reader.method().cloned().unwrap_or_default()
    }

    /// Starts serving a request.
    pub(super) fn begin(&self, has_body: bool) {
        self.standing.enter(ConnectionPhase::Serving);
        self.answering.set(false);
        self.unread_body.set(has_body);
        self.body_dropped.set(!has_body);
    }

    /// Records that the body was read to its end.
    pub(super) fn body_ended(&self) {
        self.unread_body.set(false);
    }

    /// Records that nothing reads the body.
    pub(super) fn body_dropped(&self) {
        self.body_dropped.set(true);
    }

    /// Whether another request can follow the current one, as far as is known.
    pub(super) fn can_go_on(&self) -> bool {
        let is_abandoned = self.unread_body.get() && self.body_dropped.get();
        !self.closing.get() && !is_abandoned
    }

    /// Whether the client's next byte belongs to another request.
    pub(super) fn is_between_requests(&self) -> bool {
        !self.unread_body.get()
    }

    /// Whether the client may still be sending data that nobody reads, so that closing at once could destroy
    /// the response (RFC 9112 §9.6).
    pub(super) fn is_unread(&self) -> bool {
        !self.ended.get() && (self.unread_body.get() || !self.inner.borrow().wire.inbox.is_empty())
    }

    /// The bytes that were received but not taken.
    pub(super) fn inbox<T>(&self, with: impl FnOnce(&mut BytesMut) -> T) -> T {
        with(&mut self.inner.borrow_mut().wire.inbox)
    }

    /// Reads more of a body; 0 is the end of the client's data.
    pub(super) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = ready!(self.inner.borrow_mut().wire.poll_fill(cx))?;
        self.ended.set(read == 0);
        Poll::Ready(Ok(read))
    }

    /// Asks the client for a body that waits for `100 Continue` (RFC 9110 §10.1.1).
    pub(super) fn ask_for_body(&self) {
        self.interim(StatusCode::CONTINUE, &HeaderMap::new());
        if let Some(task) = self.inner.borrow_mut().task.take() {
            task.wake();
        }
    }

    /// Sends an interim response, unless the final one has begun.
    pub(in crate::gate) fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        if self.answering.get() {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        let lead = inner.wire.outbox.lead();
        let before = lead.len();
        encode::status_line(lead, Version::HTTP_11, status);
        headers.iter().for_each(|(name, value)| encode::field(lead, name, value.as_bytes()));
        lead.extend_from_slice(b"\r\n");
        if lead.len() > MAX_INTERIM {
            lead.truncate(before);
        }
    }

    /// Ready with an error when the connection fails. While a request is being served, this also writes
    /// pending output and notices when the client closes its side.
    pub(super) fn poll_failure(&self, cx: &mut Context<'_>) -> Poll<io::Result<Infallible>> {
        if self.body_is_read_elsewhere() {
            self.inner.borrow_mut().task = Some(cx.waker().clone());
        }
        // Pending means that output remains, which does not prevent reading.
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        let inner = &mut *self.inner.borrow_mut();
        // Bytes of the next request, and the end after them, are left unread until then.
        if self.unread_body.get() || self.ended.get() || !inner.wire.inbox.is_empty() {
            return Poll::Pending;
        }
        if ready!(inner.wire.poll_fill(cx))? == 0 {
            // It may still read, if it has not gone away altogether.
            self.ended.set(true);
            self.standing.client_ended();
        }
        Poll::Pending
    }

    fn body_is_read_elsewhere(&self) -> bool {
        self.unread_body.get() && !self.body_dropped.get()
    }

    /// Writes pending output.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut self.inner.borrow_mut().wire;
        if !wire.is_writing() {
            return Poll::Ready(Ok(()));
        }
        let drained = wire.poll_drain(cx);
        self.standing.wrote(drained.is_ready());
        drained
    }

    /// Starts the final response.
    pub(super) fn answer(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.answering.set(true);
        write(self.inner.borrow_mut().wire.outbox.lead());
    }

    /// The pending output.
    pub(super) fn outbox<T>(&self, with: impl FnOnce(&mut Outbox) -> T) -> T {
        with(&mut self.inner.borrow_mut().wire.outbox)
    }

    /// Takes the socket and the bytes received but not taken. A body that still exists finds the connection
    /// closed.
    pub(super) fn take(&self) -> (ClientStream, Bytes) {
        let inner = &mut *self.inner.borrow_mut();
        std::mem::replace(&mut inner.wire, Http1Wire::new(ClientStream::Closed)).into_parts()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use http::HeaderValue;
    use http::header::LINK;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 20 };

    /// A connection whose socket cannot be read.
    fn wire() -> Rc<ClientWire> {
        ClientWire::new(ClientStream::Closed, LIMITS)
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn another_request_can_follow_unless_its_body_was_abandoned() {
        let wire = wire();
        wire.begin(false);
        assert!(wire.can_go_on() && wire.is_between_requests());
        wire.begin(true);
        assert!(wire.can_go_on() && !wire.is_between_requests(), "it is still being read");
        wire.body_dropped();
        assert!(!wire.can_go_on() && !wire.is_between_requests());
        wire.begin(true);
        wire.body_ended();
        wire.body_dropped();
        assert!(wire.can_go_on() && wire.is_between_requests());
        wire.close_after_request();
        assert!(!wire.can_go_on());
    }

    #[test]
    fn a_client_may_still_be_sending_what_nobody_reads_until_it_has_ended() {
        for (ended, has_body, inbox, is_unread) in [
            (false, false, "", false),
            (false, true, "", true),
            (false, false, "GET", true),
            (false, true, "GET", true),
            (true, false, "", false),
            (true, true, "", false),
            (true, false, "GET", false),
            (true, true, "GET", false),
        ] {
            let wire = wire();
            wire.begin(has_body);
            wire.ended.set(ended);
            wire.inbox(|bytes| bytes.extend_from_slice(inbox.as_bytes()));
            assert_eq!(wire.is_unread(), is_unread, "{ended} {has_body} {inbox}");
        }
    }

    #[test]
    fn a_client_is_watched_only_when_nothing_of_it_waits_to_be_read() {
        for (ended, has_body, inbox, is_watched) in [
            (false, false, "", true),
            (false, true, "", false),
            (true, false, "", false),
            (false, false, "GET", false),
        ] {
            let wire = wire();
            wire.begin(has_body);
            wire.ended.set(ended);
            wire.inbox(|bytes| bytes.extend_from_slice(inbox.as_bytes()));
            // This socket fails as soon as it is read.
            let lost = wire.poll_failure(&mut Context::from_waker(Waker::noop()));
            assert_eq!(lost.is_ready(), is_watched, "{ended} {has_body} {inbox}");
        }
    }

    #[test]
    fn the_task_is_woken_to_ask_for_a_body_that_is_read_elsewhere() {
        for (has_body, dropped, woken) in [(true, false, 1), (true, true, 0), (false, false, 0)] {
            let (wire, waker) = (wire(), Arc::new(Woken::default()));
            wire.begin(has_body);
            if dropped {
                wire.body_dropped();
            }
            drop(wire.poll_failure(&mut Context::from_waker(&Arc::clone(&waker).into())));
            wire.ask_for_body();
            assert_eq!(waker.0.load(Ordering::Relaxed), woken, "{has_body} {dropped}");
            assert_eq!(wire.outbox(|outbox| outbox.lead().clone()), b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    #[test]
    fn interim_answers_wait_up_to_a_bound_and_end_where_the_final_one_begins() {
        let hint = |bytes: usize| {
            let around = "HTTP/1.1 103 Early Hints\r\nlink: \r\n\r\n".len();
            HeaderMap::from_iter([(LINK, HeaderValue::from_str(&"x".repeat(bytes - around)).unwrap())])
        };
        let waiting = |wire: &ClientWire| wire.outbox(|outbox| outbox.lead().len());
        for (second, kept) in [(65_436, 65_536), (65_437, 100), (70_000, 100)] {
            let wire = wire();
            wire.begin(false);
            wire.interim(StatusCode::EARLY_HINTS, &hint(100));
            wire.interim(StatusCode::EARLY_HINTS, &hint(second));
            assert_eq!(waiting(&wire), kept, "{second}");
            wire.answer(|out| out.clear());
            wire.interim(StatusCode::EARLY_HINTS, &hint(100));
            assert_eq!(waiting(&wire), 0);
            wire.begin(false);
            wire.interim(StatusCode::EARLY_HINTS, &hint(100));
            assert_eq!(waiting(&wire), 100);
        }
    }
}
