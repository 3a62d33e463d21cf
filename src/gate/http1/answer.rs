//! Sends the response to the client: first the head, then the body as it arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame};

use super::encode::{self, Announced, AnswerFraming, AnswerTraits};
use super::wire::ClientWire;
use crate::gate::body::AnswerBody;

/// A response being sent. Its head is already in the outbox.
pub(super) struct Http1Answering<'a> {
    wire: &'a ClientWire,
    framing: AnswerFraming,
    announced: Announced,
    /// `None` once its end was taken.
    body: Option<AnswerBody>,
}

impl<'a> Http1Answering<'a> {
    /// Writes the head. Also returns whether another request may follow.
    pub(super) fn begin(
        wire: &'a ClientWire,
        asked: AnswerTraits,
        keep_alive: bool,
        response: Response<AnswerBody>,
        date: &HeaderValue,
    ) -> (Self, bool) {
        let (mut head, body) = response.into_parts();
        let framing = AnswerFraming::of(head.status, asked, body.size_hint().exact());
        // The gate's own refusals say so; an upstream's `Connection` field was about another connection and
        // was removed.
        let closes = head.headers.contains_key(http::header::CONNECTION);
        let persistent = keep_alive && !closes && framing != AnswerFraming::Close && wire.can_go_on();
        let announced = Announced::new(asked, &mut head.headers);
        wire.answer(|out| encode::head(out, (head.status, &head.headers), asked, framing, persistent, date));
        let ends = matches!(framing, AnswerFraming::Empty | AnswerFraming::Length(0));
        (Self { wire, framing, announced, body: Some(body).filter(|_| !ends) }, persistent)
    }

    /// Sends the rest of the response.
    ///
    /// # Errors
    /// When it cannot be sent completely: what was sent must not look complete.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let starved = self.poll_pieces(cx)?.is_pending();
            if self.wire.poll_drain(cx)?.is_pending() {
                // A client that does not read cannot be sent the reason why its token is no longer in force.
                let cut = self.body.as_ref().is_some_and(|body| body.poll_cut(cx).is_ready());
                return if cut {
                    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
                } else {
                    Poll::Pending
                };
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if starved {
                return self.wire.poll_failure(cx).map_ok(|never| match never {});
            }
        }
    }

    /// Takes pieces of the body while there is space.
    fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(body) = &mut self.body {
            if !self.wire.outbox(|outbox| outbox.takes_more()) {
                break;
            }
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => self.put(frame)?,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => self.end(&HeaderMap::new())?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, frame: Frame<Bytes>) -> io::Result<()> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(&frame.into_trailers().unwrap_or_default()),
        };
        if data.is_empty() {
            return Ok(());
        }
        let mut last = self.body.as_ref().is_none_or(|body| body.is_end_stream());
        match &mut self.framing {
            AnswerFraming::Empty => return Ok(()),
            AnswerFraming::Length(left) => {
                let more = left.checked_sub(data.len() as u64);
                *left = more.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                last &= *left == 0;
                self.wire.outbox(|outbox| outbox.put(data));
            }
            AnswerFraming::Chunked => self.wire.outbox(|outbox| outbox.put_chunk(data, last)),
            AnswerFraming::Close => self.wire.outbox(|outbox| outbox.put(data)),
        }
        if last {
            self.body = None;
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> io::Result<()> {
        match self.framing {
            AnswerFraming::Length(1..) => return Err(io::ErrorKind::UnexpectedEof.into()),
            AnswerFraming::Empty | AnswerFraming::Length(_) | AnswerFraming::Close => {}
            AnswerFraming::Chunked => {
                self.wire.outbox(|outbox| outbox.put_end(|lines| self.announced.write(lines, trailers)));
            }
        }
        self.body = None;
        Ok(())
    }
}
