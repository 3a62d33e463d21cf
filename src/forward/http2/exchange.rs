//! One request and the head of its answer on one HTTP/2 stream.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::time::{Instant, Sleep};

use super::Slot;
use super::download::Http2Download;
use super::upload::Upload;
use crate::forward::body::{RequestBody, RequestBodyError};
use crate::forward::headers::Rules;
use crate::forward::http1::BadAnswer;
use crate::forward::http1::exchange::{CONTINUE_WAIT, MAX_INTERIM};
use crate::forward::pool::Link;
use crate::forward::{ForwardError, Interim};

/// One request on one stream.
pub(crate) struct Exchange<'a> {
    pub(crate) request: Request<()>,
    pub(crate) body: RequestBody,
    /// The body waits for `100 Continue`.
    pub(crate) held: bool,
    pub(crate) rules: &'a Rc<Rules>,
    pub(crate) interim: Option<&'a Interim>,
    pub(crate) limit: Duration,
}

/// Why there was no answer, and what may be done about it.
pub(crate) struct Failed {
    pub(crate) error: ForwardError,
    /// The upstream said that it did nothing (RFC 9113 §8.7).
    pub(crate) unprocessed: bool,
    /// The connection ended without a byte of an answer.
    pub(crate) unanswered: bool,
    /// The body, when the client was not yet asked for it.
    pub(crate) body: Option<RequestBody>,
}

impl Failed {
    /// Whether sending the request again can do no harm: nothing was done, or, for an `idempotent` one on a connection
    /// that had been in use before, nothing was answered (RFC 9110 §9.2.2).
    pub(crate) const fn is_harmless(&self, idempotent: bool) -> bool {
        self.unprocessed || (idempotent && self.unanswered)
    }

    /// Nothing can be done about it.
    pub(crate) const fn finally(error: ForwardError) -> Self {
        Self { error, unprocessed: false, unanswered: false, body: None }
    }
}

impl Exchange<'_> {
    /// Sends the request until the answer's head is there.
    pub(crate) async fn run(self, link: &Rc<Link>, slot: Slot) -> Result<Response<Http2Download>, Failed> {
        let end = self.body.is_empty();
        let sent = slot.0.sender.clone().send_request(self.request, end);
        let (mut answer, stream) = match sent {
            Ok(streams) => streams,
            // Nothing has been sent.
            Err(error) => {
                let body = Some(self.body);
                return Err(Failed { error: failure(error), unprocessed: true, unanswered: true, body });
            }
        };
        let mut upload = Upload::new(stream, self.body, self.held, Rc::clone(self.rules));
        let mut interims = Interims { to: self.interim, count: 0 };
        let mut alarm = pin!(tokio::time::sleep(self.limit));
        let mut hold = self.held.then(|| Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
        let head = poll_fn(|cx| {
            let head = poll_head(cx, &mut answer, &mut upload, &mut interims, hold.as_mut());
            if upload.has_progressed() {
                alarm.as_mut().reset(Instant::now() + self.limit);
            }
            match head {
                Poll::Pending => alarm.as_mut().poll(cx).map(|()| Err((overdue(&upload), false))),
                head => head,
            }
        });
        let head = head.await;
        match head {
            Ok(response) => Ok(response.map(|body| Http2Download::new(link, slot, body, upload))),
            Err((error, unprocessed)) => {
                let unanswered = matches!(error, ForwardError::Closed(_)) && interims.count == 0;
                Err(Failed { error, unprocessed, unanswered, body: upload.into_untouched() })
            }
        }
    }
}

type NoHead = (ForwardError, bool);

fn poll_head(
    cx: &mut Context<'_>,
    answer: &mut ResponseFuture,
    upload: &mut Upload,
    interims: &mut Interims<'_>,
    hold: Option<&mut Pin<Box<Sleep>>>,
) -> Poll<Result<Response<RecvStream>, NoHead>> {
    if upload.is_held() && hold.is_some_and(|hold| hold.as_mut().poll(cx).is_ready()) {
        upload.release();
    }
    while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
        interims.send(&interim).map_err(|error| (error.into(), false))?;
        if interim.status() == StatusCode::CONTINUE {
            upload.release();
        }
    }
    if let Poll::Ready(Err(error)) = upload.poll(cx) {
        return Poll::Ready(Err((error.into(), false)));
    }
    Pin::new(answer).poll(cx).map_err(|error| {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // A stream sees the peer's GOAWAY as its error only when the peer has not taken it up.
        let unprocessed = error.is_remote() && (refused || error.is_go_away());
        (failure(error), unprocessed)
    })
}

fn overdue(upload: &Upload) -> ForwardError {
    if upload.waits_for_client() { RequestBodyError::Stalled.into() } else { ForwardError::Timeout }
}

fn failure(error: h2::Error) -> ForwardError {
    if error.is_reset() && error.is_remote() {
        return ForwardError::Reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
    }
    if error.is_reset() || error.is_library() {
        return ForwardError::BadAnswer(BadAnswer::Http2);
    }
    ForwardError::Closed(error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()))
}

struct Interims<'a> {
    to: Option<&'a Interim>,
    count: u32,
}

impl Interims<'_> {
    fn send(&mut self, interim: &Response<()>) -> Result<(), BadAnswer> {
        self.count += 1;
        if self.count > MAX_INTERIM {
            return Err(BadAnswer::Interim);
        }
        if let Some(to) = self.to {
            to.send(interim.status(), interim.headers());
        }
        Ok(())
    }
}
