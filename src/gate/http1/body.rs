//! The bodies of HTTP/1.1 requests, taken apart (RFC 9112 §6 and §7) without a guess.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use memchr::memchr;

use super::head::{Fault, Limits};
use super::lines::{self, Body};

/// Longest chunk-size line, extensions included (RFC 9112 §7.1.1 asks for a limit).
pub(super) const MAX_CHUNK_LINE: usize = 256;

/// One step through a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Some of the body.
    Data(Bytes),
    /// The trailers, which end it.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More bytes are needed.
    More,
}

/// Takes one body off a connection's bytes.
#[derive(Debug)]
pub(super) struct BodyReader {
    limits: Limits,
    state: State,
    /// How far the end of a line was looked for.
    looked: usize,
    /// Bytes of the trailer section so far.
    trailer_bytes: usize,
    trailers: HeaderMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes to the end.
    Length(u64),
    /// At the size of a chunk.
    ChunkSize,
    /// In a chunk, so many bytes before its end.
    Chunk(u64),
    /// At the line end behind a chunk.
    ChunkEnd,
    /// At a trailer line, or the empty line that ends the body.
    Trailer,
    /// Complete.
    End,
    /// Nothing is read after a fault.
    Broken(Fault),
}

impl BodyReader {
    pub(super) fn new(body: Body, limits: Limits) -> Self {
        let state = match body {
            Body::Length(0) => State::End,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::ChunkSize,
        };
        Self { limits, state, looked: 0, trailer_bytes: 0, trailers: HeaderMap::new() }
    }

    /// Whether the body is complete.
    pub(super) fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// How many bytes are left, when that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::End => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Takes the next piece off `inbox`.
    ///
    /// # Errors
    /// When the body cannot be read to its end; then and from then on.
    pub(super) fn next(&mut self, inbox: &mut BytesMut) -> Result<Piece, Fault> {
        let piece = self.step(inbox);
        if let Err(fault) = piece {
            self.state = State::Broken(fault);
        }
        piece
    }

    fn step(&mut self, inbox: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                State::Broken(fault) => return Err(fault),
                _ if inbox.is_empty() => return Ok(Piece::More),
                State::Length(left) => {
                    let (data, left) = take(inbox, left);
                    self.state = if left == 0 { State::End } else { State::Length(left) };
                    return Ok(Piece::Data(data));
                }
                State::Chunk(left) => {
                    let (data, left) = take(inbox, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    self.end_early(inbox);
                    return Ok(Piece::Data(data));
                }
                State::ChunkEnd => match &**inbox {
                    [b'\r', b'\n', ..] => {
                        drop(inbox.split_to(2));
                        self.state = State::ChunkSize;
                    }
                    [b'\r'] => return Ok(Piece::More),
                    _ => return Err(Fault::bad("A chunk is longer than its size")),
                },
                State::ChunkSize => match self.line(inbox)? {
                    None => return Ok(Piece::More),
                    Some(line) => {
                        let size = lines::chunk_size(&line)?;
                        self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
                    }
                },
                State::Trailer => match self.line(inbox)? {
                    None => return Ok(Piece::More),
                    Some(line) if line.is_empty() => {
                        self.state = State::End;
                        let trailers = std::mem::take(&mut self.trailers);
                        return Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) });
                    }
                    Some(line) => lines::trailer(&line, &mut self.trailers, self.limits)?,
                },
            }
        }
    }

    /// Takes the end of the body together with its last chunk, so that it can be forwarded in one write.
    fn end_early(&mut self, inbox: &mut BytesMut) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        if self.state == State::ChunkEnd && inbox.starts_with(END) {
            drop(inbox.split_to(END.len()));
            self.state = State::End;
        }
    }

    /// Takes a line off `inbox`, and its end with it.
    fn line(&mut self, inbox: &mut BytesMut) -> Result<Option<BytesMut>, Fault> {
        let found = inbox.get(self.looked..).and_then(|rest| memchr(b'\n', rest));
        let length = found.map_or(inbox.len(), |end| self.looked + end + 1);
        match self.state {
            State::ChunkSize if length > MAX_CHUNK_LINE => {
                return Err(Fault::bad("A chunk-size line is too long"));
            }
            State::Trailer if self.trailer_bytes + length > self.limits.bytes => {
                return Err(lines::HEAD_TOO_LARGE);
            }
            _ => {}
        }
        if found.is_none() {
            self.looked = length;
            return Ok(None);
        }
        self.looked = 0;
        if self.state == State::Trailer {
            self.trailer_bytes += length;
        }
        let mut line = inbox.split_to(length);
        if !line.ends_with(b"\r\n") {
            return Err(Fault::bad("A line does not end with CR LF"));
        }
        line.truncate(length - 2);
        Ok(Some(line))
    }
}

fn take(inbox: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(inbox.len());
    (inbox.split_to(size).freeze(), left - size as u64)
}
