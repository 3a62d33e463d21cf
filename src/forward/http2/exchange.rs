//! One request and its response head on one HTTP/2 stream.

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

use super::StreamSlot;
use super::download::Http2Download;
use super::upload::Http2Upload;
use crate::forward::body::RequestBody;
use crate::forward::headers::FieldRules;
use crate::forward::http1::BadAnswer;
use crate::forward::patience::{CONTINUE_WAIT, MAX_INTERIM};
use crate::forward::pool::EndpointPool;
use crate::forward::retry::{Failed, FailureStage};
use crate::forward::{ForwardError, Interim};

/// One request on one stream.
pub(crate) struct Http2Exchange<'a> {
    pub(crate) request: Request<()>,
    pub(crate) body: RequestBody,
    /// Whether the body waits for `100 Continue`.
    pub(crate) held: bool,
    pub(crate) rules: &'a Rc<FieldRules>,
    pub(crate) interim: Option<&'a Interim>,
    pub(crate) limit: Duration,
}

impl Http2Exchange<'_> {
    /// Sends the request until the response's head has arrived.
    pub(crate) async fn run(
        self,
        pool: &Rc<EndpointPool>,
        slot: StreamSlot,
    ) -> Result<Response<Http2Download>, Failed> {
        let end = self.body.is_empty();
        let sent = slot.sender().send_request(self.request, end);
        let (mut answer, stream) = match sent {
            Ok(streams) => streams,
            Err(error) => {
                return Err(Failed {
                    error: failure(error),
                    stage: FailureStage::NotSent,
                    body: Some(self.body),
                });
            }
        };
        let received = slot.received();
        let mut upload = Http2Upload::new(stream, self.body, self.held, Rc::clone(self.rules));
        let mut interims = Interims { to: self.interim, count: 0 };
        let mut alarm = pin!(tokio::time::sleep(self.limit));
        let mut hold = self.held.then(|| Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
        let head = poll_fn(|cx| {
            let head = poll_head(cx, &mut answer, &mut upload, &mut interims, hold.as_mut());
            if upload.has_progressed() {
                alarm.as_mut().reset(Instant::now() + self.limit);
            }
            match head {
                // The time limit for the response starts once the client has sent everything.
                Poll::Pending if upload.waits_for_client() => Poll::Pending,
                Poll::Pending => alarm.as_mut().poll(cx).map(|()| Err((ForwardError::Timeout, false))),
                head => head,
            }
        });
        let head = head.await;
        match head {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(Failed::without_retry(BadAnswer::Switch.into()))
            }
            Ok(response) => Ok(response.map(|body| Http2Download::new(pool, slot, body, upload))),
            Err((error, unprocessed)) => {
                // No byte was received on any stream since the request was sent: the peer may be gone for all
                // of them.
                if matches!(error, ForwardError::Timeout) && slot.received() == received {
                    slot.retire();
                }
                let stage = match error {
                    _ if unprocessed => FailureStage::Unprocessed,
                    ForwardError::Closed(_) if interims.count == 0 => FailureStage::Unanswered,
                    _ => FailureStage::Answered,
                };
                Err(Failed { error, stage, body: upload.into_untouched() })
            }
        }
    }
}

type NoHead = (ForwardError, bool);

fn poll_head(
    cx: &mut Context<'_>,
    answer: &mut ResponseFuture,
    upload: &mut Http2Upload,
    interims: &mut Interims<'_>,
    hold: Option<&mut Pin<Box<Sleep>>>,
) -> Poll<Result<Response<RecvStream>, NoHead>> {
    if upload.is_held() && hold.is_some_and(|hold| hold.as_mut().poll(cx).is_ready()) {
        upload.release();
    }
    while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
        // HTTP/2 has no protocol switch (RFC 9113 §8.6).
        if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Err((BadAnswer::Switch.into(), false)));
        }
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
        // The peer's GOAWAY appears as the error of a stream only if the peer has not processed it.
        let unprocessed = error.is_remote() && (refused || error.is_go_away());
        (failure(error), unprocessed)
    })
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
