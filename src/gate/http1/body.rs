//! Parses the bodies of HTTP/1.1 requests (RFC 9112 §6 and §7), strictly.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use memchr::memchr;

use super::head::{HeadLimits, Http1Fault};
use super::lines::{self, BodyFraming};

/// Maximum length of a chunk-size line, including extensions (RFC 9112 §7.1.1 requires a limit).
pub(super) const MAX_CHUNK_LINE: usize = 256;

/// The result of one step through a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestPiece {
    /// Part of the body.
    Data(Bytes),
    /// The trailers, which end it.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More bytes are needed.
    More,
}

/// Reads one body from a connection's bytes.
#[derive(Debug)]
pub(crate) struct BodyReader {
    limits: HeadLimits,
    state: RequestBodyState,
    /// How far the search for a line end has got.
    looked: usize,
    /// Size of the trailer section so far.
    trailer_bytes: usize,
    trailers: HeaderMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestBodyState {
    /// This many bytes remain.
    Length(u64),
    /// Before a chunk size.
    ChunkSize,
    /// Within a chunk, of which this many bytes remain.
    Chunk(u64),
    /// Before the line end after a chunk.
    ChunkEnd,
    /// Before a trailer line, or the empty line that ends the body.
    Trailer,
    /// Complete.
    End,
    /// After a fault, nothing more is read.
    Broken(Http1Fault),
}

impl BodyReader {
    pub(crate) fn new(body: BodyFraming, limits: HeadLimits) -> Self {
        let state = match body {
            BodyFraming::Length(0) => RequestBodyState::End,
            BodyFraming::Length(length) => RequestBodyState::Length(length),
            BodyFraming::Chunked => RequestBodyState::ChunkSize,
        };
        Self { limits, state, looked: 0, trailer_bytes: 0, trailers: HeaderMap::new() }
    }

    /// Whether the body is complete.
    pub(super) fn is_end(&self) -> bool {
        self.state == RequestBodyState::End
    }

    /// The number of remaining bytes, if known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self.state {
            RequestBodyState::End => Some(0),
            RequestBodyState::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Takes the next piece from `inbox`.
    ///
    /// # Errors
    /// When the body is malformed; the same error again on every later call.
    pub(crate) fn next(&mut self, inbox: &mut BytesMut) -> Result<RequestPiece, Http1Fault> {
        let piece = self.step(inbox);
        if let Err(fault) = piece {
            self.state = RequestBodyState::Broken(fault);
        }
        piece
    }

    fn step(&mut self, inbox: &mut BytesMut) -> Result<RequestPiece, Http1Fault> {
        loop {
            match self.state {
                RequestBodyState::End => return Ok(RequestPiece::End),
                RequestBodyState::Broken(fault) => return Err(fault),
                _ if inbox.is_empty() => return Ok(RequestPiece::More),
                RequestBodyState::Length(left) => {
                    let (data, left) = take(inbox, left);
                    self.state =
                        if left == 0 { RequestBodyState::End } else { RequestBodyState::Length(left) };
                    return Ok(RequestPiece::Data(data));
                }
                RequestBodyState::Chunk(left) => {
                    let (data, left) = take(inbox, left);
                    self.state =
                        if left == 0 { RequestBodyState::ChunkEnd } else { RequestBodyState::Chunk(left) };
                    self.end_early(inbox);
                    return Ok(RequestPiece::Data(data));
                }
                RequestBodyState::ChunkEnd => match &**inbox {
                    [b'\r', b'\n', ..] => {
                        drop(inbox.split_to(2));
                        self.state = RequestBodyState::ChunkSize;
                    }
                    [b'\r'] => return Ok(RequestPiece::More),
                    _ => return Err(Http1Fault::bad("A chunk is longer than its declared size")),
                },
                RequestBodyState::ChunkSize => match self.line(inbox)? {
                    None => return Ok(RequestPiece::More),
                    Some(line) => {
                        let size = lines::chunk_size(&line)?;
                        self.state =
                            if size == 0 { RequestBodyState::Trailer } else { RequestBodyState::Chunk(size) };
                    }
                },
                RequestBodyState::Trailer => match self.line(inbox)? {
                    None => return Ok(RequestPiece::More),
                    Some(line) if line.is_empty() => {
                        self.state = RequestBodyState::End;
                        let trailers = std::mem::take(&mut self.trailers);
                        return Ok(if trailers.is_empty() {
                            RequestPiece::End
                        } else {
                            RequestPiece::Trailers(trailers)
                        });
                    }
                    Some(line) => lines::trailer(&line, &mut self.trailers, self.limits)?,
                },
            }
        }
    }

    /// Takes the end of the body together with its last chunk, so that both are forwarded in one write.
    fn end_early(&mut self, inbox: &mut BytesMut) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        if self.state == RequestBodyState::ChunkEnd && inbox.starts_with(END) {
            drop(inbox.split_to(END.len()));
            self.state = RequestBodyState::End;
        }
    }

    /// Takes a line from `inbox`, including its line end.
    fn line(&mut self, inbox: &mut BytesMut) -> Result<Option<BytesMut>, Http1Fault> {
        let found = inbox.get(self.looked..).and_then(|rest| memchr(b'\n', rest));
        let length = found.map_or(inbox.len(), |end| self.looked + end + 1);
        match self.state {
            RequestBodyState::ChunkSize if length > MAX_CHUNK_LINE => {
                return Err(Http1Fault::bad("A chunk-size line is too long"));
            }
            RequestBodyState::Trailer if self.trailer_bytes + length > self.limits.bytes => {
                return Err(lines::HEAD_TOO_LARGE);
            }
            _ => {}
        }
        if found.is_none() {
            self.looked = length;
            return Ok(None);
        }
        self.looked = 0;
        if self.state == RequestBodyState::Trailer {
            self.trailer_bytes += length;
        }
        let mut line = inbox.split_to(length);
        if !line.ends_with(b"\r\n") {
            return Err(Http1Fault::bad("A line does not end with CRLF"));
        }
        line.truncate(length - 2);
        Ok(Some(line))
    }
}

fn take(inbox: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(inbox.len());
    (inbox.split_to(size).freeze(), left - size as u64)
}
