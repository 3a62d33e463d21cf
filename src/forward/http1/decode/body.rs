//! Parses the body of an HTTP/1.1 response (RFC 9112 §6 and §7).

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{BadAnswer, HeadEnd, MAX_FIELDS, ResponseFraming};
use crate::forward::headers::hop::is_hop_by_hop;

/// Maximum bytes of chunk extensions in one body: they are ignored, but not without limit (RFC 9112 §7.1.1).
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Maximum size of a trailer section.
const MAX_TRAILERS: usize = 16 * 1024;

/// The result of one step through a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ResponsePiece {
    /// Part of the body.
    Data(Bytes),
    /// The trailers, which end it.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More bytes are needed.
    More,
}

/// Parses a body.
#[derive(Debug)]
pub(crate) struct BodyDecoder {
    state: BodyState,
    /// How many more bytes of chunk extensions are accepted.
    extensions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    /// This many bytes remain.
    Length(u64),
    /// Until the end of the connection.
    Close,
    /// Before a chunk's size line.
    Size,
    /// Within a chunk, of which this many bytes remain.
    Chunk(u64),
    /// Before the line end after a chunk.
    ChunkEnd,
    /// Before the trailer section.
    Trailers,
    /// Complete.
    End,
}

impl BodyDecoder {
    pub(crate) fn new(framing: ResponseFraming) -> Self {
        let state = match framing {
            ResponseFraming::Empty => BodyState::End,
            ResponseFraming::Length(length) => BodyState::Length(length),
            ResponseFraming::Chunked => BodyState::Size,
            ResponseFraming::Close => BodyState::Close,
        };
        Self { state, extensions: MAX_EXTENSIONS }
    }

    /// Whether the body is complete.
    pub(crate) fn is_end(&self) -> bool {
        self.state == BodyState::End
    }

    /// The number of remaining bytes, if known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self.state {
            BodyState::End => Some(0),
            BodyState::Length(left) => Some(left),
            BodyState::Close
            | BodyState::Size
            | BodyState::Chunk(_)
            | BodyState::ChunkEnd
            | BodyState::Trailers => None,
        }
    }

    /// Whether the body is complete, given that the connection has ended (RFC 9112 §8).
    pub(crate) fn ends_with_connection(&mut self) -> bool {
        if self.state == BodyState::Close {
            self.state = BodyState::End;
        }
        self.is_end()
    }

    /// Takes the next piece from `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<ResponsePiece, BadAnswer> {
        loop {
            match self.state {
                BodyState::End => return Ok(ResponsePiece::End),
                _ if buffer.is_empty() => return Ok(ResponsePiece::More),
                BodyState::Close => return Ok(ResponsePiece::Data(buffer.split().freeze())),
                BodyState::Length(left) => {
                    let (data, left) = take(buffer, left);
                    self.state = if left == 0 { BodyState::End } else { BodyState::Length(left) };
                    return Ok(ResponsePiece::Data(data));
                }
                BodyState::Chunk(left) => {
                    let (data, left) = take(buffer, left);
                    self.state = if left == 0 { BodyState::ChunkEnd } else { BodyState::Chunk(left) };
                    return Ok(ResponsePiece::Data(data));
                }
                BodyState::ChunkEnd => match &**buffer {
                    [b'\r', b'\n', ..] => {
                        drop(buffer.split_to(2));
                        self.state = BodyState::Size;
                    }
                    [b'\r'] => return Ok(ResponsePiece::More),
                    _ => return Err(BadAnswer::Chunk),
                },
                BodyState::Size => match self.size(buffer)? {
                    None => return Ok(ResponsePiece::More),
                    Some(0) => self.state = BodyState::Trailers,
                    Some(size) => self.state = BodyState::Chunk(size),
                },
                BodyState::Trailers => return self.trailers(buffer),
            }
        }
    }

    /// Parses `chunk-size [ chunk-ext ] CRLF`.
    fn size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, BadAnswer> {
        let Some(end) = memchr::memchr(b'\n', buffer) else {
            // A size has at most 16 digits; everything else in an incomplete line is an extension.
            let too_long = buffer.len() > self.extensions + 17;
            return if too_long { Err(BadAnswer::Chunk) } else { Ok(None) };
        };
        let line = buffer.split_to(end + 1);
        let line = line.strip_suffix(b"\r\n").ok_or(BadAnswer::Chunk)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, rest) = line.split_at_checked(digits).ok_or(BadAnswer::Chunk)?;
        let extension = rest.trim_ascii_start();
        let clean = rest.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        if !(1..=16).contains(&digits) || !clean || !(extension.is_empty() || extension.starts_with(b";")) {
            return Err(BadAnswer::Chunk);
        }
        self.extensions = self.extensions.checked_sub(rest.len()).ok_or(BadAnswer::Chunk)?;
        let value = |byte: &u8| u64::from(char::from(*byte).to_digit(16).unwrap_or(0));
        Ok(Some(size.iter().fold(0, |sum, byte| sum << 4 | value(byte))))
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<ResponsePiece, BadAnswer> {
        if buffer.starts_with(b"\r\n") {
            drop(buffer.split_to(2));
            self.state = BodyState::End;
            return Ok(ResponsePiece::End);
        }
        let end = HeadEnd::default().find(buffer);
        let Some(length) = end.filter(|length| *length <= MAX_TRAILERS) else {
            return if buffer.len() <= MAX_TRAILERS {
                Ok(ResponsePiece::More)
            } else {
                Err(BadAnswer::Chunk)
            };
        };
        let lines = without_space_before_colons(&buffer.split_to(length));
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&lines, &mut fields) else {
            return Err(BadAnswer::Chunk);
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).or(Err(BadAnswer::Chunk))?;
            let value = HeaderValue::from_bytes(field.value).or(Err(BadAnswer::Chunk))?;
            if !is_hop_by_hop(&name) && name != header::CONTENT_LENGTH {
                trailers.append(name, value);
            }
        }
        self.state = BodyState::End;
        Ok(if trailers.is_empty() { ResponsePiece::End } else { ResponsePiece::Trailers(trailers) })
    }
}

/// Removes white space before colons, as required of a proxy (RFC 9112 §5.1); `httparse` does so only for
/// heads.
fn without_space_before_colons(lines: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let (name, rest) = line.split_at(memchr::memchr(b':', line).unwrap_or(0));
        clean.extend_from_slice(name.trim_ascii_end());
        clean.extend_from_slice(rest);
    }
    clean
}

fn take(buffer: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    (buffer.split_to(size).freeze(), left - size as u64)
}
