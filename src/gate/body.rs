//! Bodies at the gate: the request body with its limit, and the response body with the cleanup at its end.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use super::accept::ClientConnection;
use super::access::Record;
use super::cut::Cut;
use super::http::Switched;
use super::http1::ClientUpload;
use super::http2::StreamUpload;
use super::patience::{UNWANTED_BODY, UNWANTED_BODY_BYTES};
use super::streams::WatchedStream;
use crate::forward::{BodyError, Flow, ForwardBody, RequestBodyError};

/// The body of a request, over either protocol.
pub(super) enum ClientBody {
    Http1(ClientUpload),
    Http2(StreamUpload),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// A client's body that fails when it exceeds a limit.
pub(super) struct Limited {
    body: ClientBody,
    left: u64,
    watched: Option<Rc<WatchedStream>>,
    /// Bytes received so far.
    received: Option<Rc<Cell<u64>>>,
}

impl Limited {
    /// Limits a body to `most` bytes.
    pub(super) fn new(body: ClientBody, most: Option<u64>, watched: Option<Rc<WatchedStream>>) -> Self {
        Self { body, left: most.unwrap_or(u64::MAX), watched, received: None }
    }

    /// Also counts the bytes.
    pub(super) fn counted(self, received: Option<Rc<Cell<u64>>>) -> Self {
        Self { received, ..self }
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let polled = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(watched) = &self.watched {
            watched.moved(Flow::Up);
        }
        Poll::Ready(polled.map(|frame| {
            let frame = frame?;
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            if let Some(received) = &self.received {
                received.set(received.get() + length);
            }
            self.left = self.left.checked_sub(length).ok_or(RequestBodyError::TooLarge)?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the rest of an unwanted body if it is small. Returns whether the connection can serve another
/// request: on HTTP/1.1 the next one begins after this body. Over HTTP/2 the stream's task reads it after the
/// response.
pub(super) async fn discard(body: ClientBody, expects_continue: bool) -> bool {
    let (most, patience) = (UNWANTED_BODY_BYTES, UNWANTED_BODY);
    if body.is_end_stream() || matches!(body, ClientBody::Http2(_)) {
        return true;
    }
    // Reading it would ask the client to send it.
    if expects_continue || body.size_hint().lower() > most {
        return false;
    }
    let mut rest = Box::pin(Limited::new(body, Some(most), None));
    let read = async move {
        while let Some(frame) = rest.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    timeout(patience, read).await.unwrap_or(false)
}

/// Marks a request over HTTP/2 as being served until its response was handed over completely.
pub(super) struct Serving(Rc<ClientConnection>);

impl Serving {
    pub(super) fn new(connection: Rc<ClientConnection>) -> Self {
        connection.requests.set(connection.requests.get() + 1);
        Self(connection)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let left = self.0.requests.get().saturating_sub(1);
        self.0.requests.set(left);
        if left == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// The body of a response.
pub(super) struct AnswerBody {
    source: BodySource,
    watched: Option<Rc<WatchedStream>>,
    /// Whether trailers can tell how the call ended.
    grpc: bool,
    /// Written when the response has ended, however it ended.
    record: Option<Box<Record>>,
    /// Whether every byte was taken.
    complete: bool,
    _serving: Option<Serving>,
}

/// Why a response ends early.
#[derive(Debug)]
pub(super) enum AnswerError {
    /// The upstream failed.
    Upstream(BodyError),
    /// The stream must end.
    Cut(Cut),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(error) => error.fmt(f),
            Self::Cut(cut) => write!(f, "cut: {}", cut.as_str()),
        }
    }
}

impl std::error::Error for AnswerError {}

impl AnswerError {
    /// The code for resetting an HTTP/2 stream: the one that the upstream used.
    pub(super) fn reason(&self) -> h2::Reason {
        match self {
            Self::Upstream(BodyError::Reset(error)) => error.reason(),
            Self::Cut(Cut::Leaving) => Some(h2::Reason::CANCEL),
            Self::Upstream(_) | Self::Cut(Cut::Denied(_)) => None,
        }
        .unwrap_or(h2::Reason::INTERNAL_ERROR)
    }
}

enum BodySource {
    Refusal(Option<Bytes>),
    Upstream(ForwardBody),
    /// The stream must end, and the client is told why in gRPC's form.
    Cut(Option<HeaderMap>),
    /// The protocol is switched.
    Switched(Option<Box<Switched>>),
    /// The upstream failed. h2 discards unwritten data when a stream is reset, so it first gets the chance to
    /// write what came before.
    Failed(Option<AnswerError>),
}

impl AnswerBody {
    pub(super) fn refusal(text: Option<Bytes>, record: Box<Record>, serving: Option<Serving>) -> Self {
        let (source, record) = (BodySource::Refusal(text), Some(record));
        Self { source, watched: None, grpc: false, record, complete: false, _serving: serving }
    }

    /// The upstream's response. `grpc`: whether it is gRPC over HTTP/2.
    pub(super) fn upstream(
        body: ForwardBody,
        watched: Option<Rc<WatchedStream>>,
        grpc: bool,
        record: Option<Box<Record>>,
        serving: Option<Serving>,
    ) -> Self {
        Self { source: BodySource::Upstream(body), watched, grpc, record, complete: false, _serving: serving }
    }

    /// The body of a `101`, which carries the tunnel.
    pub(super) fn switched(switched: Switched) -> Self {
        let source = BodySource::Switched(Some(Box::new(switched)));
        Self { source, watched: None, grpc: false, record: None, complete: false, _serving: None }
    }

    /// Takes the tunnel that the connection becomes after a `101`.
    pub(super) fn take_tunnel(&mut self) -> Option<Box<Switched>> {
        match &mut self.source {
            BodySource::Switched(switched) => switched.take(),
            BodySource::Refusal(_) | BodySource::Upstream(_) | BodySource::Cut(_) | BodySource::Failed(_) => {
                None
            }
        }
    }

    /// Whether it comes from the upstream.
    pub(super) fn is_forwarded(&self) -> bool {
        matches!(self.source, BodySource::Upstream(_))
    }

    fn count(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.sent += bytes as u64;
        }
    }

    /// Ready when the stream must end.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<Cut> {
        self.watched.as_ref().map_or(Poll::Pending, |watched| watched.poll_cut(cx))
    }

    /// Ends with an error, after giving h2 the chance to write what came before.
    fn fail(&mut self, error: AnswerError, cx: &Context<'_>) {
        if let Some(record) = &mut self.record {
            match &error {
                AnswerError::Upstream(error) => record.body_failed(error),
                AnswerError::Cut(_) => record.ended_by = Some("gate"),
            }
        }
        self.source = match error {
            AnswerError::Cut(cut) if self.grpc => BodySource::Cut(Some(cut.refusal(None).grpc_outcome())),
            error => BodySource::Failed(Some(error)),
        };
        cx.waker().wake_by_ref();
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let whole = self.complete || self.is_end_stream();
        if let Some(record) = self.record.as_mut().filter(|_| !whole) {
            record.ended_early();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = &mut *self;
        let body = match &mut this.source {
            BodySource::Refusal(text) => {
                let text = text.take();
                this.count(text.as_ref().map_or(0, Bytes::len));
                return Poll::Ready(text.map(|text| Ok(Frame::data(text))));
            }
            BodySource::Switched(_) => return Poll::Ready(None),
            BodySource::Failed(error) => return Poll::Ready(error.take().map(Err)),
            BodySource::Cut(outcome) => {
                return Poll::Ready(outcome.take().map(|outcome| Ok(Frame::trailers(outcome))));
            }
            BodySource::Upstream(body) => body,
        };
        let frame = Pin::new(body).poll_frame(cx);
        if let Some(watched) = &this.watched {
            if let Poll::Ready(cut) = watched.poll_cut(cx) {
                this.fail(AnswerError::Cut(cut), cx);
                return Poll::Pending;
            }
            if frame.is_ready() {
                watched.moved(Flow::Down);
            }
        }
        match std::task::ready!(frame) {
            Some(Err(error)) => {
                this.fail(AnswerError::Upstream(error), cx);
                Poll::Pending
            }
            Some(Ok(frame)) => {
                this.count(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                this.complete = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Refusal(text) => text.is_none(),
            BodySource::Upstream(body) => body.is_end_stream(),
            BodySource::Switched(_) => true,
            BodySource::Failed(_) => false,
            BodySource::Cut(outcome) => outcome.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Refusal(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            BodySource::Upstream(body) => body.size_hint(),
            BodySource::Switched(_) => SizeHint::with_exact(0),
            BodySource::Failed(_) | BodySource::Cut(_) => SizeHint::default(),
        }
    }
}
