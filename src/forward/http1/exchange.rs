//! One request and its response head on one HTTP/1.1 connection.
//!
//! Sends and reads at the same time, within the future of the request, because an upstream may respond before
//! it has read everything.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderValue, Method, StatusCode};
use tokio::time::Sleep;

use super::connection::Http1Connection;
use super::decode::{self, BadAnswer, HeadEnd, ResponseHead};
use super::upload::{UploadError, UpstreamUpload};
use crate::forward::headers::hop::grants_upgrade;
use crate::forward::patience::{CONTINUE_WAIT, MAX_INTERIM};
use crate::forward::{ForwardError, Interim};

/// The properties of a request that its exchange needs.
pub(crate) struct Http1Exchange<'a> {
    pub(crate) method: &'a Method,
    pub(crate) upgrade: Option<&'a HeaderValue>,
    pub(crate) interim: Option<&'a Interim>,
}

/// The progress of an exchange.
struct HeadProgress {
    end: HeadEnd,
    interims: u32,
    hold: Option<Pin<Box<Sleep>>>,
}

impl Http1Exchange<'_> {
    /// Sends the request until the response's head has arrived. The upload may still be running then.
    pub(crate) async fn run(
        &self,
        connection: &Rc<RefCell<Http1Connection>>,
        upload: &mut UpstreamUpload,
    ) -> Result<ResponseHead, ForwardError> {
        let hold = upload.is_held().then(|| Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
        let mut progress = HeadProgress { end: HeadEnd::default(), interims: 0, hold };
        poll_fn(|cx| self.poll(cx, &mut connection.borrow_mut(), upload, &mut progress)).await
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Http1Connection,
        upload: &mut UpstreamUpload,
        progress: &mut HeadProgress,
    ) -> Poll<Result<ResponseHead, ForwardError>> {
        loop {
            send(cx, connection, upload)?;
            match self.poll_head(cx, connection, progress) {
                Poll::Ready(Ok(head)) if is_interim(head.status) => {
                    self.interim(&head, progress)?;
                    // Any interim response shows that the upstream is there; only this one asks for the body.
                    if head.status == StatusCode::CONTINUE {
                        upload.release();
                    }
                }
                Poll::Ready(head) => return Poll::Ready(head.and_then(|head| self.check(head))),
                Poll::Pending if was_held_long_enough(cx, upload, progress) => upload.release(),
                Poll::Pending => break,
            }
        }
        // The time limit for the response starts once the client has sent everything; the body limits the
        // client's silence itself.
        if upload.waits_for_client(connection) {
            return Poll::Pending;
        }
        connection.alarm.poll(cx).map(|()| Err(ForwardError::Timeout))
    }

    fn poll_head(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Http1Connection,
        progress: &mut HeadProgress,
    ) -> Poll<Result<ResponseHead, ForwardError>> {
        loop {
            if !connection.wire.inbox.is_empty()
                && let Some(head) = decode::head(&mut connection.wire.inbox, &mut progress.end, self.method)?
            {
                return Poll::Ready(Ok(head));
            }
            match connection.poll_answer(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(ForwardError::Closed(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ForwardError::Closed(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn interim(&self, head: &ResponseHead, progress: &mut HeadProgress) -> Result<(), BadAnswer> {
        progress.interims += 1;
        if progress.interims > MAX_INTERIM {
            return Err(BadAnswer::Interim);
        }
        if let Some(interim) = self.interim {
            interim.send(head.status, &head.headers);
        }
        Ok(())
    }

    /// Checks that a switch of protocol was requested (RFC 9110 §7.8).
    fn check(&self, head: ResponseHead) -> Result<ResponseHead, ForwardError> {
        let granted = head.status != StatusCode::SWITCHING_PROTOCOLS
            || self.upgrade.is_some_and(|wanted| grants_upgrade(&head.headers, wanted));
        if granted { Ok(head) } else { Err(BadAnswer::Switch.into()) }
    }
}

pub(crate) fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn send(
    cx: &mut Context<'_>,
    connection: &mut Http1Connection,
    upload: &mut UpstreamUpload,
) -> Result<(), ForwardError> {
    // A held request still has its head to send.
    if !upload.is_running() && connection.wire.outbox.is_empty() {
        return Ok(());
    }
    match upload.poll(cx, connection) {
        Poll::Ready(Err(UploadError::Client(error))) => Err(error.into()),
        // The upstream may have responded before it stopped reading; that response counts.
        Poll::Ready(Err(UploadError::Upstream) | Ok(())) | Poll::Pending => Ok(()),
    }
}

fn was_held_long_enough(cx: &mut Context<'_>, upload: &UpstreamUpload, progress: &mut HeadProgress) -> bool {
    upload.is_held() && progress.hold.as_mut().is_some_and(|hold| hold.as_mut().poll(cx).is_ready())
}
