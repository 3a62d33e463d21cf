//! A request being sent to an HTTP/1.1 upstream: first the head, then the body as the client sends it.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use super::connection::Http1Connection;
use super::encode::RequestFraming;
use crate::forward::body::{RequestBody, RequestBodyError};
use crate::forward::headers::{self, FieldRules, Http1Fields};
use crate::http1::Outbox;

/// A request being sent. Its head is already in the connection's outbox.
pub(crate) struct UpstreamUpload {
    body: RequestBody,
    framing: RequestFraming,
    state: Http1UploadState,
    rules: Rc<FieldRules>,
    /// Whether the client was asked for its body.
    asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Http1UploadState {
    /// The body waits for `100 Continue` (RFC 9110 §10.1.1).
    Held,
    /// Pieces are taken from the client and written.
    Streaming,
    /// The last bytes are in the outbox.
    Finishing,
    /// Everything is written, or nothing more can be.
    Over,
}

/// Why a request could not be sent completely.
pub(crate) enum UploadError {
    /// The client's side failed.
    Client(RequestBodyError),
    /// The upstream accepts no more; it may have responded all the same.
    Upstream,
}

impl UpstreamUpload {
    pub(crate) fn new(body: RequestBody, framing: RequestFraming, held: bool, rules: Rc<FieldRules>) -> Self {
        let state = match framing {
            RequestFraming::Empty => Http1UploadState::Finishing,
            RequestFraming::Length(_) | RequestFraming::Chunked if held => Http1UploadState::Held,
            RequestFraming::Length(_) | RequestFraming::Chunked => Http1UploadState::Streaming,
        };
        Self { body, framing, state, rules, asked: false }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state == Http1UploadState::Held
    }

    /// Whether there is more to send.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, Http1UploadState::Streaming | Http1UploadState::Finishing)
    }

    /// Whether everything that is missing must come from the client.
    pub(crate) fn waits_for_client(&self, connection: &Http1Connection) -> bool {
        self.state == Http1UploadState::Streaming && connection.wire.outbox.is_empty()
    }

    /// Starts sending the body, because the upstream asked for it.
    pub(crate) fn release(&mut self) {
        if self.state == Http1UploadState::Held {
            self.state = Http1UploadState::Streaming;
        }
    }

    /// The body, if the client was not asked for it yet.
    pub(crate) fn into_untouched(self) -> Option<RequestBody> {
        (!self.asked).then_some(self.body)
    }

    /// Sends as much as possible; ready when everything is sent or nothing more can be.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Http1Connection,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            let mut starved = !self.is_running();
            if self.state == Http1UploadState::Streaming && to.wire.outbox.takes_more() {
                match self.poll_piece(cx, to) {
                    // Progress restarts the time limit for the response.
                    Poll::Ready(Ok(())) => to.alarm.restart(),
                    Poll::Ready(Err(error)) => {
                        self.state = Http1UploadState::Over;
                        return Poll::Ready(Err(UploadError::Client(error)));
                    }
                    Poll::Pending => starved = true,
                }
            }
            if ready!(to.wire.poll_drain(cx)).is_err() {
                self.state = Http1UploadState::Over;
                to.wire.outbox = Outbox::default();
                return Poll::Ready(Err(UploadError::Upstream));
            }
            if self.state == Http1UploadState::Finishing {
                self.state = Http1UploadState::Over;
                to.request_sent = true;
                return Poll::Ready(Ok(()));
            }
            if starved {
                return Poll::Pending;
            }
        }
    }

    /// Moves one piece from the client to the outbox.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Http1Connection,
    ) -> Poll<Result<(), RequestBodyError>> {
        self.asked = true;
        let frame = match ready!(self.body.poll_frame(cx)) {
            None => return Poll::Ready(self.end(to, &HeaderMap::new())),
            Some(Err(error)) => return Poll::Ready(Err(error)),
            Some(Ok(frame)) => frame,
        };
        Poll::Ready(match frame.into_data() {
            Ok(data) => self.put(to, data),
            Err(frame) => frame.into_trailers().map_or(Ok(()), |trailers| self.end(to, &trailers)),
        })
    }

    fn put(&mut self, to: &mut Http1Connection, data: Bytes) -> Result<(), RequestBodyError> {
        if data.is_empty() {
            return Ok(());
        }
        let last = match &mut self.framing {
            RequestFraming::Empty => return Err(RequestBodyError::Length),
            RequestFraming::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(RequestBodyError::Length)?;
                let last = *left == 0;
                to.wire.outbox.put(data);
                last
            }
            RequestFraming::Chunked => {
                let last = self.body.is_end();
                to.wire.outbox.put_chunk(data, last);
                last
            }
        };
        if last {
            self.state = Http1UploadState::Finishing;
        }
        Ok(())
    }

    fn end(&mut self, to: &mut Http1Connection, trailers: &HeaderMap) -> Result<(), RequestBodyError> {
        match self.framing {
            RequestFraming::Length(left) if left > 0 => return Err(RequestBodyError::Length),
            RequestFraming::Empty | RequestFraming::Length(_) => {}
            RequestFraming::Chunked => to.wire.outbox.put_end(|lines| {
                headers::request_trailers(&self.rules, trailers, &mut Http1Fields(lines));
            }),
        }
        self.state = Http1UploadState::Finishing;
        Ok(())
    }
}
