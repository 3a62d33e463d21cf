//! HTTP/1.1 with clients: serves one request after another, and closes connections without losing a response
//! (RFC 9112).
//!
//! This is our own server rather than hyper's. Each head is parsed once, by one set of rules, so that no two
//! parsers can disagree on where a request begins. The task of a connection sees its own socket, so that
//! deadlines, interim responses and the close need no messages between tasks. Idle connections keep no
//! buffers, and a request costs less.
//!
//! `lines`, `head` and `body` parse and `encode` formats, without I/O. `wire` is the socket with its buffers,
//! shared by the connection's task and the body of the current request (`upload`); `answer` sends. `standing`
//! determines how long a client may take.

mod answer;
pub(crate) mod body;
pub(crate) mod encode;
mod fields;
pub(crate) mod head;
pub(crate) mod lines;
mod standing;
mod upload;
mod wire;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use ::http::header::EXPECT;
use ::http::{Response, Version};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

use super::accept::ClientConnection;
use super::body::{AnswerBody, ClientBody};
use super::connections::ConnectionPlace;
use super::http;
use super::io::ClientStream;
use super::patience::LINGER_SILENCE;
use super::serve::{End, drive};

use self::answer::Http1Answering;
use self::body::BodyReader;
use self::encode::AnswerTraits;
use self::head::RequestHead;
use self::standing::{ConnectionPhase, Patience};
use self::wire::NextRequest;

pub(super) use self::head::{HeadLimits, Http1Fault};
pub(super) use self::lines::is_host;
pub(super) use self::upload::ClientUpload;
pub(super) use self::wire::ClientWire;

/// Serves one connection. No `async fn`, whose future would keep a second place for each argument.
pub(super) fn serve(
    connection: Rc<ClientConnection>,
    stream: ClientStream,
    place: ConnectionPlace,
) -> impl Future<Output = ()> {
    let generation = connection.worker.generation();
    let limits = &generation.live.settings.limits;
    let patience = Patience { head: limits.header_timeout, idle: limits.idle_connection_timeout };
    let wire = ClientWire::new(stream, HeadLimits { bytes: limits.header_bytes, fields: limits.headers });
    drop(generation);
    async move {
        let mut served = Box::pin(requests(&connection, &wire));
        let deadline = |leaving: Option<Instant>| {
            let waiting = wire.standing.phase() == ConnectionPhase::Waiting;
            leaving.filter(|_| waiting).or_else(|| wire.standing.deadline(patience))
        };
        let farewell = |_served: Pin<&mut _>| {
            wire.close_after_request();
            wire.standing.phase() == ConnectionPhase::Waiting
        };
        let end = drive(&connection, served.as_mut(), deadline, farewell).await;
        drop(served);
        if end == End::Served {
            Box::pin(close(&wire)).await;
        }
        drop(place);
    }
}

/// Closes the connection so that the client can read what was sent.
async fn close(wire: &ClientWire) {
    let is_unread = wire.is_unread();
    let (mut stream, _) = wire.take();
    // An error means that the client is gone.
    if matches!(timeout(LINGER_SILENCE, stream.shutdown()).await, Ok(Ok(()))) && is_unread {
        stream.linger().await;
    }
}

/// Serves requests until the client or the gate ends the connection.
async fn requests(connection: &Rc<ClientConnection>, wire: &Rc<ClientWire>) -> io::Result<()> {
    loop {
        match poll_fn(|cx| wire.poll_next(cx)).await? {
            NextRequest::Request(request) => {
                // Boxed, so that a connection without a request is small.
                if !Box::pin(exchange(connection, wire, request)).await? {
                    return Ok(());
                }
            }
            NextRequest::Fault(fault) => {
                let refusal = http::refuse_unread(connection, fault, wire.method());
                wire.begin(true);
                wire.answer(|out| out.extend_from_slice(&refusal));
                return poll_fn(|cx| wire.poll_drain(cx)).await;
            }
            NextRequest::End => return Ok(()),
        }
    }
}

/// Serves one request. Returns whether another one may follow.
async fn exchange(
    connection: &Rc<ClientConnection>,
    wire: &Rc<ClientWire>,
    request: RequestHead,
) -> io::Result<bool> {
    let RequestHead { head, body, wants_upgrade, keep_alive } = request;
    let asked = AnswerTraits::new(&head);
    let reader = BodyReader::new(body, wire.limits);
    wire.begin(!reader.is_end());
    let held = !reader.is_end()
        && head.version == Version::HTTP_11
        && head
            .headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let upload = ClientBody::Http1(ClientUpload::new(Rc::clone(wire), reader, held));
    let origin = http::Http1 { wire: Rc::clone(wire), wants_upgrade };
    let mut response = {
        let visit = pin!(http::serve(Rc::clone(connection), Some(origin), head, upload, None));
        visited(wire, visit).await?
    };
    let tunnel = response.body_mut().take_tunnel();
    let date = connection.worker.date();
    let (mut answering, persistent) = Http1Answering::begin(wire, asked, keep_alive, response, &date);
    poll_fn(|cx| answering.poll(cx)).await?;
    if let Some(tunnel) = tunnel {
        wire.standing.enter(ConnectionPhase::Tunnel);
        let (stream, early) = wire.take();
        tunnel.carry(stream, early).await;
        return Ok(false);
    }
    Ok(persistent && wire.is_between_requests())
}

/// Waits for the response to a request, as long as the client is there.
async fn visited(
    wire: &ClientWire,
    mut visit: Pin<&mut impl Future<Output = Response<AnswerBody>>>,
) -> io::Result<Response<AnswerBody>> {
    poll_fn(|cx| match visit.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Ok(response)),
        Poll::Pending => {
            wire.poll_failure(cx).map(|lost: io::Result<Infallible>| lost.map(|never| match never {}))
        }
    })
    .await
}
