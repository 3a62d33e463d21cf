//! The body of a request being sent to an HTTP/2 upstream, at the pace of its flow-control windows.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;

use crate::forward::body::{RequestBody, RequestBodyError};
use crate::forward::headers::{self, FieldRules};

/// A request body being sent.
pub(super) struct Http2Upload {
    stream: SendStream<Bytes>,
    body: RequestBody,
    /// Taken from the client, but not yet allowed by the upstream's window.
    waiting: Bytes,
    /// Whether `waiting` is the last piece.
    last: bool,
    state: Http2UploadState,
    rules: Rc<FieldRules>,
    /// Whether the client was asked for its body.
    asked: bool,
    /// Whether anything was sent since this was last checked.
    progress: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Http2UploadState {
    /// The body waits for `100 Continue`.
    Held,
    /// Pieces are taken from the client and sent.
    Streaming,
    /// Everything is sent, or nothing more can be.
    Over,
}

impl Http2Upload {
    pub(super) fn new(
        stream: SendStream<Bytes>,
        body: RequestBody,
        held: bool,
        rules: Rc<FieldRules>,
    ) -> Self {
        let state = match (body.is_empty(), held) {
            (true, _) => Http2UploadState::Over,
            (false, true) => Http2UploadState::Held,
            (false, false) => Http2UploadState::Streaming,
        };
        Self { stream, body, waiting: Bytes::new(), last: false, state, rules, asked: false, progress: false }
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == Http2UploadState::Held
    }

    /// Whether there is more to send.
    pub(super) fn is_running(&self) -> bool {
        self.state == Http2UploadState::Streaming
    }

    /// Whether everything that is missing must come from the client.
    pub(super) fn waits_for_client(&self) -> bool {
        self.is_running() && self.waiting.is_empty()
    }

    /// Whether anything was sent since the last call.
    pub(super) fn has_progressed(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Starts sending the body, because the upstream asked for it.
    pub(super) fn release(&mut self) {
        if self.state == Http2UploadState::Held {
            self.state = Http2UploadState::Streaming;
        }
    }

    /// The body, if the client was not asked for it yet.
    pub(super) fn into_untouched(self) -> Option<RequestBody> {
        (!self.asked).then_some(self.body)
    }

    /// Sends as much as the windows allow; ready when everything is sent or nothing more can be.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        while self.state == Http2UploadState::Streaming {
            // The upstream may want no more of the body, whatever its response.
            if self.stream.poll_reset(cx).is_ready() {
                self.state = Http2UploadState::Over;
                break;
            }
            if self.waiting.is_empty() {
                if let Err(error) = ready!(self.poll_piece(cx)) {
                    self.state = Http2UploadState::Over;
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(error));
                }
            } else {
                ready!(self.poll_send(cx));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        self.asked = true;
        let Some(frame) = ready!(self.body.poll_frame(cx)?) else {
            return Poll::Ready(self.end(None));
        };
        match frame.into_data() {
            Ok(data) => (self.waiting, self.last) = (data, self.body.is_end()),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Poll::Ready(self.end(Some(&trailers)));
                }
            }
        }
        Poll::Ready(if self.last && self.waiting.is_empty() { self.end(None) } else { Ok(()) })
    }

    /// Sends as much of the waiting piece as the upstream's windows allow.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.reserve_capacity(self.waiting.len());
        while self.stream.capacity() == 0 {
            if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                self.state = Http2UploadState::Over;
                return Poll::Ready(());
            }
        }
        let piece = self.waiting.split_to(self.stream.capacity().min(self.waiting.len()));
        let end = self.last && self.waiting.is_empty();
        if self.stream.send_data(piece, end).is_err() || end {
            self.state = Http2UploadState::Over;
        }
        self.progress = true;
        Poll::Ready(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), RequestBodyError> {
        let mut kept = HeaderMap::new();
        if let Some(trailers) = trailers {
            headers::request_trailers(&self.rules, trailers, &mut kept);
        }
        let sent = if kept.is_empty() {
            self.stream.send_data(Bytes::new(), true)
        } else {
            self.stream.send_trailers(kept)
        };
        self.state = Http2UploadState::Over;
        self.progress = true;
        // h2 only fails here for a body that is shorter than announced.
        sent.or(Err(RequestBodyError::Length))
    }
}
