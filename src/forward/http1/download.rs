//! The body of an HTTP/1.1 upstream's response, streamed to the client.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::connection::Http1Connection;
use super::decode::body::{BodyDecoder, ResponsePiece};
use super::decode::{ResponseFraming, ResponseHead};
use super::upload::{UploadError, UpstreamUpload};
use crate::forward::alarm::Silence;
use crate::forward::body::{BodyError, ResponseSource};
use crate::forward::pool::EndpointPool;
use crate::forward::task::AbortOnDrop;

/// A body still being read. Dropping it before its end closes the connection.
pub(crate) struct Http1Download {
    connection: Rc<RefCell<Http1Connection>>,
    body: BodyDecoder,
    pool: Rc<EndpointPool>,
    /// Whether the upstream keeps the connection open after the response.
    persistent: bool,
    /// The rest of the request, if the response came before its end.
    upload: Option<AbortOnDrop>,
    /// Limits the upstream's silence while the client waits for more.
    silence: Silence,
    /// Whether nothing more will come.
    over: bool,
}

/// Starts the body that belongs to `head`. If it arrived completely with the head, the connection is free
/// again at once.
pub(crate) fn begin(
    pool: &Rc<EndpointPool>,
    connection: Rc<RefCell<Http1Connection>>,
    head: &ResponseHead,
    upload: UpstreamUpload,
) -> ResponseSource {
    let whole = whole(&mut connection.borrow_mut(), head.framing);
    if let Some(bytes) = whole {
        // A response that completes before the request ends the exchange: the rest of the request is not sent
        // (RFC 9112 §9.5).
        give_back(pool, connection, head.persistent);
        return if bytes.is_empty() { ResponseSource::Empty } else { ResponseSource::Whole(bytes) };
    }
    let upload = upload.is_running().then(|| continue_upload(Rc::clone(&connection), upload));
    let silence = Silence::new(pool.upstream.settings().body_timeout);
    let (body, pool) = (BodyDecoder::new(head.framing), Rc::clone(pool));
    ResponseSource::Http1(Box::new(Http1Download {
        connection,
        body,
        pool,
        persistent: head.persistent,
        upload,
        silence,
        over: false,
    }))
}

fn whole(connection: &mut Http1Connection, framing: ResponseFraming) -> Option<Bytes> {
    let length = match framing {
        ResponseFraming::Empty => 0,
        ResponseFraming::Length(length) => usize::try_from(length).ok()?,
        ResponseFraming::Chunked | ResponseFraming::Close => return None,
    };
    (connection.wire.inbox.len() >= length).then(|| connection.wire.inbox.split_to(length).freeze())
}

fn give_back(pool: &Rc<EndpointPool>, connection: Rc<RefCell<Http1Connection>>, persistent: bool) {
    if persistent && connection.borrow().is_clean() {
        pool.put(connection);
    }
}

/// Sends the rest of a request whose response has begun, in a task of its own, because the client may want to
/// send everything before it reads.
fn continue_upload(connection: Rc<RefCell<Http1Connection>>, mut upload: UpstreamUpload) -> AbortOnDrop {
    AbortOnDrop::spawn(async move {
        let sent = poll_fn(|cx| upload.poll(cx, &mut connection.borrow_mut())).await;
        if let Err(UploadError::Client(error)) = sent {
            let mut connection = connection.borrow_mut();
            connection.failure = Some(error);
            if let Some(reader) = connection.reader.take() {
                reader.wake();
            }
        }
    })
}

impl Http1Download {
    /// Whether the last piece was forwarded.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The number of remaining bytes, if known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = ready!(self.poll_piece(cx));
        if let Err(error) = &piece {
            self.pool.errors.count_body(error);
        }
        let frame = piece.map(|piece| match piece {
            ResponsePiece::Data(data) => Some(Frame::data(data)),
            ResponsePiece::Trailers(trailers) => Some(Frame::trailers(trailers)),
            ResponsePiece::End | ResponsePiece::More => None,
        });
        if frame.is_ok() && self.body.is_end() {
            self.over = true;
            give_back(&self.pool, Rc::clone(&self.connection), self.persistent);
        }
        Poll::Ready(frame.transpose())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponsePiece, BodyError>> {
        let polled = self.poll_answer(cx);
        match polled {
            Poll::Pending if self.silence.poll(cx).is_ready() => Poll::Ready(Err(BodyError::Timeout)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(piece) => {
                self.silence.end();
                Poll::Ready(piece)
            }
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponsePiece, BodyError>> {
        let mut connection = self.connection.borrow_mut();
        if let Some(error) = connection.failure.take() {
            return Poll::Ready(Err(BodyError::Request(error)));
        }
        loop {
            match self.body.next(&mut connection.wire.inbox) {
                Ok(ResponsePiece::More) => {}
                piece => return Poll::Ready(piece.map_err(BodyError::BadAnswer)),
            }
            match connection.wire.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.body.ends_with_connection() => {
                    return Poll::Ready(Ok(ResponsePiece::End));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(BodyError::Truncated)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(BodyError::Io(error))),
                Poll::Pending => {
                    if self.upload.is_some() {
                        connection.reader = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
