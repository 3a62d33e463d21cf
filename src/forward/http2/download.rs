//! The body of an HTTP/2 upstream's response, streamed to the client.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::header::{self, HeaderMap};
use http_body::Frame;

use super::StreamSlot;
use super::upload::Http2Upload;
use crate::forward::alarm::Silence;
use crate::forward::body::BodyError;
use crate::forward::pool::EndpointPool;
use crate::forward::task::AbortOnDrop;

/// The body of a response. Dropping it before its end resets the stream.
pub(crate) struct Http2Download {
    stream: RecvStream,
    /// Remaining bytes of the announced `Content-Length`.
    left: Option<u64>,
    data_done: bool,
    /// Limits the upstream's silence while the client waits for more.
    silence: Silence,
    pool: Rc<EndpointPool>,
    _upload: Option<AbortOnDrop>,
    _slot: StreamSlot,
}

impl Http2Download {
    pub(super) fn new(
        pool: &Rc<EndpointPool>,
        slot: StreamSlot,
        stream: RecvStream,
        mut upload: Http2Upload,
    ) -> Self {
        let running = upload.is_running();
        // A task of its own, because the client may want to send everything before it reads. If the client
        // fails, the stream is reset, which the reader of the response sees.
        let upload =
            running.then(|| AbortOnDrop::spawn(async move { drop(poll_fn(|cx| upload.poll(cx)).await) }));
        Self {
            stream,
            left: None,
            data_done: false,
            silence: Silence::new(pool.upstream.settings().body_timeout),
            pool: Rc::clone(pool),
            _upload: upload,
            _slot: slot,
        }
    }

    /// Takes the announced `Content-Length` into account.
    pub(crate) fn announced(mut self, headers: &HeaderMap, has_body: bool) -> Self {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        self.left = if has_body { length } else { Some(0) };
        self
    }

    pub(crate) fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        if self.stream.is_end_stream() { Some(0) } else { self.left }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(piece) = self.poll_piece(cx) else {
            return self.silence.poll(cx).map(|()| Some(Err(self.failed(BodyError::Timeout))));
        };
        self.silence.end();
        Poll::Ready(match piece {
            Ok(frame) => frame.map(Ok),
            Err(error) => self.error(error).map(Err),
        })
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
        if !self.data_done {
            if let Some(data) = ready!(self.stream.poll_data(cx)) {
                let data = data?;
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                // The client took this piece, so the upstream may send as much again.
                self.stream.flow_control().release_capacity(data.len())?;
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            self.data_done = true;
        }
        self.stream.poll_trailers(cx).map_ok(|trailers| trailers.map(Frame::trailers))
    }

    /// The meaning of a stream error; `None`: the end of the body.
    fn error(&self, error: h2::Error) -> Option<BodyError> {
        // After a complete response, an upstream may use this code to stop the rest of the request (RFC 9113
        // §8.1). h2 does not tell whether the response was complete, but the announced length does.
        let polite = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        if polite && self.left.is_none_or(|left| left == 0) {
            return None;
        }
        let error = if error.is_io() {
            error.into_io().map_or(BodyError::Truncated, BodyError::Io)
        } else {
            BodyError::Reset(error)
        };
        Some(self.failed(error))
    }

    fn failed(&self, error: BodyError) -> BodyError {
        self.pool.errors.count_body(&error);
        error
    }
}
