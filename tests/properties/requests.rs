//! The requests that the gate reads from a client's bytes are those that hyper reads, however the bytes are split. The gate
//! may read fewer, for the reasons listed here.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::splits;
use crate::gate::http1::body::{BodyReader, RequestPiece};
use crate::gate::http1::head::{HeadLimits, HeadReader};

const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, fields: 64 };

/// Faults of what hyper reads: where the gate is stricter on purpose.
const STRICTER: &[&str] = &[
    "The method is not supported",
    "The CONNECT method is not supported",
    "A line does not end with CRLF",
    "The request is not a valid HTTP/1.1 request",
    "The request line has no HTTP version",
    "A header line has no colon",
    "The request has more than one Content-Length",
    "The request has more than one Transfer-Encoding",
    "Content-Length and Transfer-Encoding are both set",
    "Transfer-Encoding is not allowed in HTTP/1.0",
    "The transfer coding is not supported",
    "The Transfer-Encoding is invalid",
    "The Content-Length is invalid",
    "The Host header is missing",
    "The request has more than one Host header",
    "The Host header is invalid",
    "The request target is invalid",
    "The request target is too long",
    "The request head is too large",
    "The request has too many header fields",
    "A header field contains a control character",
    "A trailer field must not frame the message",
    "A header field has an invalid name",
    "The size of a chunk is invalid",
    "A chunk-size line is too long",
];

/// A request as both read it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReadRequest {
    method: Method,
    /// Path and query.
    target: Vec<u8>,
    version: Version,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

/// Everything that the gate reads.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReadByGate {
    requests: Vec<ReadRequest>,
    fault: Option<&'static str>,
    /// The last request ends the connection, or may.
    last: bool,
    /// Whether the input ends between two requests.
    whole: bool,
}

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let whole = gate(&[input]);
    for split in splits(input) {
        assert_eq!(gate(&split), whole, "another split of {}", input.escape_ascii());
    }
    let hyper = hyper(input);
    for (index, ours) in whole.requests.iter().enumerate() {
        // hyper knows fewer targets than RFC 9112 and real clients.
        if ours.target.iter().any(|byte| !is_uri(*byte)) {
            return;
        }
        let theirs = hyper.get(index);
        assert_eq!(Some(ours), theirs, "request {index} of {}", input.escape_ascii());
    }
    if let Some(fault) = whole.fault
        && hyper.len() > whole.requests.len()
    {
        assert!(STRICTER.contains(&fault), "{fault}, where hyper reads on: {}", input.escape_ascii());
    }
    if whole.whole && !whole.last {
        assert_eq!(hyper.len(), whole.requests.len(), "hyper reads more of {}", input.escape_ascii());
    }
}

fn is_uri(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte)
}

fn gate(pieces: &[&[u8]]) -> ReadByGate {
    let (mut read, mut heads, mut inbox) = (ReadByGate::default(), HeadReader::new(LIMITS), BytesMut::new());
    let mut open: Option<(BodyReader, ReadRequest, bool)> = None;
    for piece in pieces {
        inbox.extend_from_slice(piece);
        loop {
            let Some((body, request, last)) = &mut open else {
                match heads.read(&mut inbox) {
                    Ok(Some(head)) => {
                        let last = !head.keep_alive || head.wants_upgrade;
                        let (body, head) = (BodyReader::new(head.body, LIMITS), head.head);
                        let request = ReadRequest {
                            method: head.method.clone(),
                            target: head.target.as_bytes().to_vec(),
                            version: head.version,
                            fields: fields(&head.headers),
                            body: Vec::new(),
                            trailers: Vec::new(),
                        };
                        open = Some((body, request, last));
                        continue;
                    }
                    Ok(None) => break,
                    Err(fault) => return ReadByGate { fault: Some(fault.problem), ..read },
                }
            };
            match body.next(&mut inbox) {
                Ok(RequestPiece::Data(data)) => request.body.extend_from_slice(&data),
                Ok(RequestPiece::Trailers(trailers)) => request.trailers = fields(&trailers),
                Ok(RequestPiece::More) => break,
                Ok(RequestPiece::End) => {
                    read.last = *last;
                    read.requests.push(request.clone());
                    open = None;
                    if read.last {
                        return read;
                    }
                }
                Err(fault) => return ReadByGate { fault: Some(fault.problem), ..read },
            }
        }
    }
    ReadByGate { whole: open.is_none() && inbox.is_empty(), ..read }
}

fn fields(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// A client that sends these bytes and ends its side.
struct Client {
    sends: Bytes,
}

impl hyper::rt::Read for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.sends.len().min(buffer.remaining());
        buffer.put_slice(&self.sends.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Client {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The requests that hyper reads to their end.
fn hyper(input: &[u8]) -> Vec<ReadRequest> {
    let read = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let read = Rc::clone(&read);
        async move {
            let (head, body) = request.into_parts();
            let target = head.uri.path_and_query().map(|sent| sent.as_str().as_bytes().to_vec());
            if let Ok(body) = body.collect().await {
                read.borrow_mut().push(ReadRequest {
                    method: head.method.clone(),
                    target: target.unwrap_or_default(),
                    version: head.version,
                    fields: fields(&head.headers),
                    trailers: body.trailers().map(fields).unwrap_or_default(),
                    body: body.to_bytes().to_vec(),
                });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut server = http1::Builder::new();
    server.half_close(true).header_read_timeout(None).max_headers(LIMITS.fields * 2).max_buf_size(1 << 20);
    let serving = server.serve_connection(Client { sends: Bytes::copy_from_slice(input) }, service);
    let mut serving = pin!(serving);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    // Every end of a wait is announced: without an announcement there is nothing left to do.
    while woken.0.swap(false, Ordering::Relaxed) {
        if serving.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            break;
        }
    }
    read.take()
}
