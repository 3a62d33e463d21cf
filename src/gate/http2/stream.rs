//! One request over HTTP/2, from its head to the end of its response and its own body.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::upload::{Leftover, StreamUpload};
use super::wire::Http2Wire;
use crate::enforce::target::RequestTarget;
use crate::gate::accept::ClientConnection;
use crate::gate::body::{AnswerBody, ClientBody, Serving};
use crate::gate::http::{Head, serve as answer};
use crate::gate::patience::{UNWANTED_STREAM, UNWANTED_STREAM_BYTES};

/// Connection-specific fields of HTTP/1.1, which HTTP/2 forbids (RFC 9113 §8.2.2).
const OF_CONNECTIONS: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    /// With a response, or by an error of this side.
    Answered,
    /// The client reset it before the response was complete.
    Reset,
    /// The connection is gone.
    Lost,
}

/// A request whose head was received.
pub(super) struct AcceptedStream {
    pub(super) connection: Rc<ClientConnection>,
    pub(super) wire: Rc<Http2Wire>,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) serving: Serving,
    /// How long a client may stop reading.
    pub(super) patience: Duration,
}

impl AcceptedStream {
    /// Serves the request to its end.
    pub(super) async fn serve(self) {
        let Self { connection, wire, request, respond, serving, patience } = self;
        let (head, stream) = request.into_parts();
        let (body, leftover) = StreamUpload::new(stream, &head.headers, Rc::clone(&wire));
        let head = Rc::new(Head {
            target: RequestTarget::from(&head.uri),
            method: head.method,
            version: head.version,
            headers: head.headers,
        });
        let (id, mut stream) = (respond.stream_id().as_u32(), Http2Answering { respond, patience });
        let ended = if wire.is_malformed(id) {
            stream.reset(Reason::PROTOCOL_ERROR)
        } else {
            // Pinned in place, because it is too large to be moved for every request.
            let answering =
                pin!(answer(Rc::clone(&connection), None, head, ClientBody::Http2(body), Some(serving)));
            match stream.response(answering).await {
                Ok(_) if wire.is_malformed(id) => stream.reset(Reason::PROTOCOL_ERROR),
                Ok(response) => {
                    stream.send(response, || connection.worker.date(), || wire.is_malformed(id)).await
                }
                Err(ended) => ended,
            }
        };
        wire.forget(id);
        if let (Some(leftover), StreamEnd::Answered) = (leftover, ended) {
            Box::pin(drain_body(leftover)).await;
        }
        let resets = connection.resets.get();
        connection.resets.set(match ended {
            StreamEnd::Reset => resets + 1,
            StreamEnd::Answered => resets.saturating_sub(1),
            StreamEnd::Lost => resets,
        });
    }
}

/// Reads the rest of a body, so that the client is not interrupted while it sends. RFC 9113 §8.1 lets a
/// server reset the stream after a complete response, but libcurl before 8.0 treats that as an error.
async fn drain_body(leftover: Leftover) {
    let Some(mut stream) = leftover.borrow_mut().take() else { return };
    let (most, time) = (UNWANTED_STREAM_BYTES, UNWANTED_STREAM);
    let reading = async {
        let mut left = most;
        while let Some(Ok(data)) = poll_fn(|cx| stream.poll_data(cx)).await {
            left = left.saturating_sub(data.len());
            if left == 0 || stream.flow_control().release_capacity(data.len()).is_err() {
                return;
            }
        }
    };
    // When the time is over, dropping the stream resets it.
    drop(timeout(time, reading).await);
}

/// The sending half of a stream.
struct Http2Answering {
    respond: SendResponse<Bytes>,
    /// How long a client may stop reading.
    patience: Duration,
}

impl Http2Answering {
    /// Waits for the response, unless the stream ends first.
    async fn response(
        &mut self,
        mut answering: Pin<&mut impl Future<Output = Response<AnswerBody>>>,
    ) -> Result<Response<AnswerBody>, StreamEnd> {
        // First, so that a request that is already reset costs the upstream nothing.
        poll_fn(|cx| Poll::Ready(self.poll_reset(cx))).await?;
        let mut is_watched = true;
        poll_fn(|cx| {
            if let Poll::Ready(response) = answering.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            // Not twice in one turn: the check above is in the first.
            if !std::mem::take(&mut is_watched) {
                self.poll_reset(cx)?;
            }
            Poll::Pending
        })
        .await
    }

    /// Checks whether the stream has ended before its response, and registers to be woken when it does.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Result<(), StreamEnd> {
        match self.respond.poll_reset(cx) {
            Poll::Ready(Ok(_)) => Err(StreamEnd::Reset),
            Poll::Ready(Err(_)) => Err(StreamEnd::Lost),
            Poll::Pending => Ok(()),
        }
    }

    fn reset(&mut self, reason: Reason) -> StreamEnd {
        self.respond.send_reset(reason);
        StreamEnd::Answered
    }

    async fn send(
        &mut self,
        response: Response<AnswerBody>,
        date: impl Fn() -> HeaderValue,
        is_malformed: impl Fn() -> bool,
    ) -> StreamEnd {
        let (mut head, body) = response.into_parts();
        let end = body.is_end_stream();
        if !body.is_forwarded() {
            of_the_gate(&mut head.headers, &body, end);
        }
        if !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, date());
        }
        let Ok(stream) = self.respond.send_response(Response::from_parts(head, ()), end) else {
            // The client may have reset it in the meantime.
            let reset = poll_fn(|cx| Poll::Ready(self.poll_reset(cx))).await;
            return reset.err().unwrap_or_else(|| self.reset(Reason::INTERNAL_ERROR));
        };
        if end {
            return StreamEnd::Answered;
        }
        let mut sending = Sending { stream, body, waits: false, alarm: None, patience: self.patience };
        match sending.run().await {
            Ok(()) => StreamEnd::Answered,
            Err(Stopped::Reset) => StreamEnd::Reset,
            Err(Stopped::Lost) => StreamEnd::Lost,
            Err(Stopped::Failed(reason)) => {
                let reason = if is_malformed() { Reason::PROTOCOL_ERROR } else { reason };
                sending.stream.send_reset(reason);
                StreamEnd::Answered
            }
        }
    }
}

/// Converts the head of one of the gate's own responses to HTTP/2. Forwarded responses have neither
/// connection-specific fields nor need a length added.
fn of_the_gate(headers: &mut HeaderMap, body: &AnswerBody, end: bool) {
    for name in &OF_CONNECTIONS {
        headers.remove(name);
    }
    if !end && let Some(length) = body.size_hint().exact() {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

/// Why a body is not sent to its end.
enum Stopped {
    /// The client reset the stream.
    Reset,
    /// The connection is gone.
    Lost,
    /// The stream must be reset with this code.
    Failed(Reason),
}

impl From<h2::Error> for Stopped {
    fn from(_: h2::Error) -> Self {
        Self::Lost
    }
}

/// A body being sent to the client.
struct Sending {
    stream: SendStream<Bytes>,
    body: AnswerBody,
    /// Whether the flow-control window is exhausted.
    waits: bool,
    /// The timer for that; kept from one wait to the next.
    alarm: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

impl Sending {
    async fn run(&mut self) -> Result<(), Stopped> {
        let sent = self.send().await;
        if matches!(sent, Err(Stopped::Lost)) {
            // h2 also accepts nothing for a stream that the client has reset.
            poll_fn(|cx| Poll::Ready(self.poll_reset(cx))).await?;
        }
        sent
    }

    async fn send(&mut self) -> Result<(), Stopped> {
        loop {
            let Some(frame) = poll_fn(|cx| self.poll_frame(cx)).await? else {
                return Ok(self.stream.send_data(Bytes::new(), true)?);
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Ok(self.stream.send_trailers(trailers)?);
                }
            };
            let end = self.body.is_end_stream();
            if !data.is_empty() {
                poll_fn(|cx| self.poll_room(cx)).await?;
            }
            self.stream.send_data(data, end)?;
            if end {
                return Ok(());
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Stopped>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.poll_reset(cx)?;
            return Poll::Pending;
        };
        Poll::Ready(frame.transpose().map_err(|error| Stopped::Failed(error.reason())))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Result<(), Stopped> {
        match self.stream.poll_reset(cx)? {
            Poll::Ready(_) => Err(Stopped::Reset),
            Poll::Pending => Ok(()),
        }
    }

    /// Waits until the window has space for the first byte of a piece: h2 buffers the rest.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            self.poll_reset(cx)?;
            match self.stream.poll_capacity(cx)? {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(Err(Stopped::Lost)),
                Poll::Pending => return self.poll_patience(cx),
            }
        }
        self.waits = false;
        Poll::Ready(Ok(()))
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if self.body.poll_cut(cx).is_ready() {
            return Poll::Ready(Err(Stopped::Failed(Reason::CANCEL)));
        }
        let patience = self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !std::mem::replace(&mut self.waits, true) {
            alarm.as_mut().reset(Instant::now() + patience);
        }
        alarm.as_mut().poll(cx).map(|()| Err(Stopped::Failed(Reason::CANCEL)))
    }
}
