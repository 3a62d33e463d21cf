//! The body of an HTTP/1.1 request, read while it is forwarded.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::{BodyReader, RequestPiece};
use super::wire::ClientWire;
use crate::forward::RequestBodyError;

/// The body of a request on its connection. If it is dropped before its end, the connection closes after the
/// response.
#[derive(Debug)]
pub(in crate::gate) struct ClientUpload {
    wire: Rc<ClientWire>,
    reader: BodyReader,
    /// Whether the client waits for a `100 Continue`.
    held: bool,
}

impl ClientUpload {
    pub(super) fn new(wire: Rc<ClientWire>, reader: BodyReader, held: bool) -> Self {
        Self { wire, reader, held }
    }

    fn taken(&self, frame: Option<Frame<Bytes>>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if self.reader.is_end() {
            self.wire.body_ended();
        }
        Poll::Ready(frame.map(Ok))
    }
}

impl Body for ClientUpload {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        let client = |error: Box<dyn std::error::Error + Send + Sync>| RequestBodyError::Client(error);
        if this.reader.is_end() {
            return Poll::Ready(None);
        }
        loop {
            match this.wire.inbox(|inbox| this.reader.next(inbox)) {
                Ok(RequestPiece::Data(data)) => return this.taken(Some(Frame::data(data))),
                Ok(RequestPiece::Trailers(trailers)) => return this.taken(Some(Frame::trailers(trailers))),
                Ok(RequestPiece::End) => return this.taken(None),
                Ok(RequestPiece::More) => {}
                Err(fault) => return Poll::Ready(Some(Err(client(fault.into())))),
            }
            // None of it has been received.
            if std::mem::take(&mut this.held) {
                this.wire.ask_for_body();
            }
            match ready!(this.wire.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) => {
                    let end = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Some(Err(client(end.into()))));
                }
                Err(error) => return Poll::Ready(Some(Err(client(error.into())))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for ClientUpload {
    fn drop(&mut self) {
        self.wire.body_dropped();
    }
}
