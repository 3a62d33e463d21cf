//! The body of a request over HTTP/2.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

use super::wire::Http2Wire;
use crate::forward::RequestBodyError;

/// The error for request trailers with a pseudo-header field (RFC 9113 §8.1).
#[derive(Debug)]
struct PseudoTrailers;

impl std::fmt::Display for PseudoTrailers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the trailers contain a pseudo-header field")
    }
}

impl std::error::Error for PseudoTrailers {}

/// Where the rest of a body goes that was not read to its end.
pub(super) type Leftover = Rc<RefCell<Option<RecvStream>>>;

/// The body of a request on its stream. h2 resets a stream as soon as its receiving half is dropped, which
/// makes clients lose the response; so an unread rest goes to the stream's task.
#[derive(Debug)]
pub(in crate::gate) struct StreamUpload {
    /// `None` for a request without a body.
    stream: Option<RecvStream>,
    leftover: Option<Leftover>,
    wire: Rc<Http2Wire>,
    /// The remaining bytes of the announced length, which h2 enforces.
    left: Option<u64>,
    in_trailers: bool,
}

impl StreamUpload {
    /// Creates the body, and the place for its rest, if it has any.
    pub(super) fn new(
        stream: RecvStream,
        headers: &HeaderMap,
        wire: Rc<Http2Wire>,
    ) -> (Self, Option<Leftover>) {
        let body = (!stream.is_end_stream()).then_some(stream);
        let leftover = body.is_some().then(Leftover::default);
        let left = body.as_ref().and_then(|_| headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok());
        (Self { stream: body, leftover: leftover.clone(), wire, left, in_trailers: false }, leftover)
    }
}

impl Drop for StreamUpload {
    fn drop(&mut self) {
        if let (Some(stream), Some(leftover)) = (self.stream.take(), &self.leftover) {
            *leftover.borrow_mut() = Some(stream);
        }
    }
}

impl Body for StreamUpload {
    type Data = Bytes;
    type Error = RequestBodyError;

    /// A body whose stream the client resets, with whatever code, is not complete.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        let client = |error: h2::Error| RequestBodyError::Client(error.into());
        if !this.in_trailers {
            if let Some(data) = ready!(stream.poll_data(cx)) {
                return Poll::Ready(Some(data.map_err(client).map(|data| {
                    // An error means that the stream is gone, as the next read reports.
                    drop(stream.flow_control().release_capacity(data.len()));
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    Frame::data(data)
                })));
            }
            this.in_trailers = true;
        }
        let trailers = ready!(stream.poll_trailers(cx)).map_err(client);
        if this.wire.is_malformed(stream.stream_id().as_u32()) {
            return Poll::Ready(Some(Err(RequestBodyError::Client(PseudoTrailers.into()))));
        }
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
