//! Request and response bodies.
//!
//! Pieces are forwarded as they arrive and only on demand, so that the slower side sets the pace and memory
//! use does not depend on the size of a body.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::alarm::Silence;
use super::endpoint::InFlight;
use super::http1::BadAnswer;
use super::http1::download::Http1Download;
use super::http2::download::Http2Download;
use super::request_count::RequestSlot;
use super::tunnel::Tunnel;

/// The body of a client's request.
pub struct RequestBody {
    body: Option<Pin<Box<dyn Body<Data = Bytes, Error = RequestBodyError>>>>,
    /// Limits the client's silence while the upstream could accept more.
    silence: Silence,
}

impl RequestBody {
    /// Creates an absent body.
    #[must_use]
    pub const fn empty() -> Self {
        Self { body: None, silence: Silence::new(None) }
    }

    /// Wraps a body, including its limits; costs nothing if it has ended already.
    pub fn new(body: impl Body<Data = Bytes, Error = RequestBodyError> + 'static) -> Self {
        if body.is_end_stream() {
            Self::empty()
        } else {
            Self { body: Some(Box::pin(body)), ..Self::empty() }
        }
    }

    /// Fails if the client is silent for longer than `limit`.
    pub(crate) fn limit_silence(&mut self, limit: Option<Duration>) {
        self.silence = Silence::new(limit);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.body.is_none()
    }

    /// Its length, if known.
    pub(crate) fn size(&self) -> Option<u64> {
        self.body.as_ref().map_or(Some(0), |body| body.size_hint().exact())
    }

    /// Whether it is known to have ended.
    pub(crate) fn is_end(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        match body.as_mut().poll_frame(cx) {
            Poll::Pending => self.silence.poll(cx).map(|()| Some(Err(RequestBodyError::Stalled))),
            ready => {
                self.silence.end();
                ready
            }
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestBody({:?} bytes)", self.size())
    }
}

/// Why a client's body could not be sent completely.
#[derive(Debug)]
pub enum RequestBodyError {
    /// It exceeds the limit: 413.
    TooLarge,
    /// The client sent nothing for `request_body_timeout`: 408.
    Stalled,
    /// It is longer or shorter than announced: 400.
    Length,
    /// The client disconnected or violated its protocol.
    Client(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for RequestBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("request body too large"),
            Self::Stalled => f.write_str("timed out while reading the request body"),
            Self::Length => f.write_str("request body does not match its Content-Length"),
            Self::Client(cause) => write!(f, "request body: {cause}"),
        }
    }
}

impl Error for RequestBodyError {}

/// The body of an upstream's response. Dropping it before its end closes the upstream's connection (HTTP/1.1)
/// or resets the stream (HTTP/2); at the end the connection returns to the pool.
pub struct ForwardBody {
    source: ResponseSource,
    in_flight: Option<InFlight>,
    slot: RequestSlot,
}

pub(crate) enum ResponseSource {
    /// No body, or one that was already forwarded.
    Empty,
    /// It arrived completely with the head.
    Whole(Bytes),
    Http1(Box<Http1Download>),
    Http2(Box<Http2Download>),
    /// A 101: what follows is not HTTP.
    Switched(Box<Tunnel>),
}

impl ForwardBody {
    pub(crate) fn new(source: ResponseSource) -> Self {
        Self { source, in_flight: None, slot: RequestSlot::default() }
    }

    /// Counts the request as in flight until the end of the body.
    pub(crate) fn counted(&mut self, in_flight: Option<InFlight>) {
        self.in_flight = in_flight.filter(|_| !matches!(self.source, ResponseSource::Empty));
    }

    /// Holds the request's slot at its upstream until the end of the body.
    pub(crate) fn hold_slot(&mut self, slot: RequestSlot) {
        if !matches!(self.source, ResponseSource::Empty) {
            self.slot = slot;
        }
    }

    /// Takes the tunnel of a `101 Switching Protocols`. The caller sends the response and runs the tunnel
    /// next to it; dropping the tunnel closes the upstream's side.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::replace(&mut self.source, ResponseSource::Empty) {
            ResponseSource::Switched(tunnel) => {
                Some(tunnel.counted(self.in_flight.take(), std::mem::take(&mut self.slot)))
            }
            other => {
                self.source = other;
                None
            }
        }
    }
}

impl Body for ForwardBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.source {
            ResponseSource::Empty | ResponseSource::Switched(_) => return Poll::Ready(None),
            ResponseSource::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ResponseSource::Http1(download) => download.poll_frame(cx),
            ResponseSource::Http2(download) => download.poll_frame(cx),
        };
        let over = match &self.source {
            ResponseSource::Whole(_) => true,
            ResponseSource::Http1(download) => download.is_over(),
            ResponseSource::Empty | ResponseSource::Http2(_) | ResponseSource::Switched(_) => false,
        };
        // After an error or the end, nothing may be polled, and the connection is not held longer than
        // needed.
        if over || matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.source = ResponseSource::Empty;
            self.in_flight = None;
            self.slot = RequestSlot::default();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            ResponseSource::Empty | ResponseSource::Switched(_) => true,
            ResponseSource::Whole(_) | ResponseSource::Http1(_) => false,
            ResponseSource::Http2(download) => download.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let exact = match &self.source {
            ResponseSource::Empty | ResponseSource::Switched(_) => Some(0),
            ResponseSource::Whole(bytes) => Some(bytes.len() as u64),
            ResponseSource::Http1(download) => download.remaining(),
            ResponseSource::Http2(download) => download.remaining(),
        };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for ForwardBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.source {
            ResponseSource::Empty => "ForwardBody(empty)",
            ResponseSource::Whole(_) => "ForwardBody(whole)",
            ResponseSource::Http1(_) => "ForwardBody(HTTP/1.1)",
            ResponseSource::Http2(_) => "ForwardBody(HTTP/2)",
            ResponseSource::Switched(_) => "ForwardBody(tunnel)",
        })
    }
}

/// Why a response's body ended early. What was forwarded must not look complete to the client.
#[derive(Debug)]
pub enum BodyError {
    /// The upstream closed the connection before the end.
    Truncated,
    /// Reading from the upstream failed.
    Io(io::Error),
    /// The upstream sent nothing for `body_timeout`.
    Timeout,
    /// The upstream's framing is invalid.
    BadAnswer(BadAnswer),
    /// The upstream reset the HTTP/2 stream; the client's is reset with the same code.
    Reset(h2::Error),
    /// The rest of the client's own request failed.
    Request(RequestBodyError),
}

impl BodyError {
    /// The label in `portcullis_upstream_errors_total`; `None` if the upstream is not at fault.
    #[must_use]
    pub fn kind(&self) -> Option<super::ErrorKind> {
        match self {
            Self::Truncated | Self::Io(_) => Some(super::ErrorKind::Closed),
            Self::Timeout => Some(super::ErrorKind::Timeout),
            Self::BadAnswer(_) => Some(super::ErrorKind::BadAnswer),
            Self::Reset(_) => Some(super::ErrorKind::Reset),
            Self::Request(_) => None,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => {
                f.write_str("the upstream closed the connection before its response was complete")
            }
            Self::Io(cause) => write!(f, "cannot read the upstream's response: {cause}"),
            Self::Timeout => f.write_str("the upstream stopped sending before its response was complete"),
            Self::BadAnswer(cause) => write!(f, "invalid response from the upstream: {cause}"),
            Self::Reset(cause) => write!(f, "the upstream reset the stream: {cause}"),
            Self::Request(cause) => write!(f, "{cause}"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Truncated | Self::Timeout => None,
            Self::Io(cause) => Some(cause),
            Self::BadAnswer(cause) => Some(cause),
            Self::Reset(cause) => Some(cause),
            Self::Request(cause) => Some(cause),
        }
    }
}
