//! Where HTTP/1.1 requests begin and end, and whether they may be read at all (RFC 9112).
//!
//! Sans I/O: it is fed the bytes before hyper sees them, says how many of them hyper may see, and stops at the first
//! that two parsers could read in two ways. Knows framing; does not know what a request asks for.

mod head;

use http::StatusCode;
use memchr::memchr;

use self::head::{Body, Head};

pub(super) use self::head::is_host;

/// Longest chunk-size line, extensions included (RFC 9112 §7.1.1 asks for a limit).
const MAX_CHUNK_LINE: usize = 256;

/// Limits on a request's head and trailers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes from the request line to the empty line, both included.
    pub(super) bytes: usize,
    /// Field lines.
    pub(super) fields: usize,
}

/// Why a request is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// What the client is answered, when it can still be.
    pub(super) status: StatusCode,
    /// What is wrong, for the client.
    pub(super) problem: &'static str,
    /// It lies in the target or the host, and not in the framing.
    pub(super) of_target: bool,
}

impl Fault {
    const fn new(status: StatusCode, problem: &'static str) -> Self {
        Self { status, problem, of_target: false }
    }

    const fn bad(problem: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, problem)
    }

    const fn target(problem: &'static str) -> Self {
        Self { of_target: true, ..Self::bad(problem) }
    }
}

/// How much of the input may pass, and why not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// This many bytes may.
    pub(super) pass: usize,
    /// `None`: that was all of it.
    pub(super) stop: Option<Stop>,
}

/// Why the input does not pass to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A request asked for another protocol: what follows has no meaning until that is decided
    /// ([`Framing::decided`]).
    Undecided,
    /// What follows cannot be read as a request, and can be answered as one.
    Head(Fault),
    /// The body of a request whose head has passed cannot be read to its end.
    Body(Fault),
}

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A line of a head, or its first byte.
    Head,
    /// A body of this many bytes more.
    Length(u64),
    /// The size of a chunk.
    ChunkSize,
    /// This many bytes more of a chunk.
    Chunk(u64),
    /// The line end behind a chunk: this many bytes of it have come.
    ChunkEnd(u8),
    /// A trailer line, or the empty line that ends the body.
    Trailer,
    /// Whether the protocol is switched.
    Undecided,
    /// Bytes of another protocol.
    Tunnel,
    /// Nothing, after a fault.
    Stopped,
}

/// The state of one connection's requests.
#[derive(Debug)]
pub(super) struct Framing {
    limits: Limits,
    state: State,
    head: Head,
    /// What has come of a line whose end has not.
    line: Vec<u8>,
}

impl Framing {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head, head: Head::default(), line: Vec::new() }
    }

    /// Reads `input`, which follows what was passed before.
    pub(super) fn feed(&mut self, input: &[u8]) -> Progress {
        let mut pass = 0;
        while let Some(rest) = input.get(pass..).filter(|rest| !rest.is_empty()) {
            let stop = match self.step(rest) {
                Ok(0) => Stop::Undecided,
                Ok(read) => {
                    pass += read;
                    continue;
                }
                Err(fault) => match std::mem::replace(&mut self.state, State::Stopped) {
                    State::Head => Stop::Head(fault),
                    _ => Stop::Body(fault),
                },
            };
            return Progress { pass, stop: Some(stop) };
        }
        Progress { pass, stop: None }
    }

    /// Whether it has to be decided if the protocol is switched.
    pub(super) fn is_undecided(&self) -> bool {
        self.state == State::Undecided
    }

    /// Says what became of a request to switch protocols.
    pub(super) fn decided(&mut self, switched: bool) {
        if switched {
            self.state = State::Tunnel;
        } else if self.state == State::Undecided {
            self.state = State::Head;
        }
    }

    /// Whether the next byte would be the first of a request.
    pub(super) fn is_between_requests(&self) -> bool {
        self.state == State::Head && self.line.is_empty() && !self.head.has_begun()
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.state == State::Head && !self.is_between_requests()
    }

    /// Whether the body of a request has begun and not ended.
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.state, State::Head | State::Undecided | State::Tunnel)
    }

    /// The method of the request that is being read, as it was sent; empty when none was read.
    pub(super) fn method(&self) -> &str {
        self.head.method()
    }

    /// Reads one element, or all there is of it; zero bytes when it has to wait for a decision.
    fn step(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        match self.state {
            State::Head | State::ChunkSize | State::Trailer => self.line(rest),
            State::Length(left) => {
                let read = shorter(left, rest.len());
                self.state = State::Length(left - read as u64);
                if left == read as u64 {
                    self.end_of_request();
                }
                Ok(read)
            }
            State::Chunk(left) => {
                let read = shorter(left, rest.len());
                let left = left - read as u64;
                self.state = if left == 0 { State::ChunkEnd(0) } else { State::Chunk(left) };
                Ok(read)
            }
            State::ChunkEnd(come) => match (come, rest.first()) {
                (0, Some(b'\r')) => {
                    self.state = State::ChunkEnd(1);
                    Ok(1)
                }
                (1, Some(b'\n')) => {
                    self.state = State::ChunkSize;
                    Ok(1)
                }
                _ => Err(Fault::bad("A chunk is longer than its size")),
            },
            State::Undecided => Ok(0),
            State::Tunnel => Ok(rest.len()),
            State::Stopped => Err(Fault::bad("Nothing is read after a fault")),
        }
    }

    /// Reads one line, or what has come of it.
    fn line(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let Some(end) = memchr(b'\n', rest) else {
            self.check_length(self.line.len() + rest.len())?;
            if self.line.is_empty() && self.state == State::Head {
                self.head.check_first_byte(rest)?;
            }
            self.line.extend_from_slice(rest);
            return Ok(rest.len());
        };
        let (now, read) = (rest.get(..end).unwrap_or_default(), end + 1);
        self.check_length(self.line.len() + read)?;
        if self.line.is_empty() {
            self.complete(now)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(now);
            self.complete(&line)?;
        }
        Ok(read)
    }

    fn check_length(&self, length: usize) -> Result<(), Fault> {
        match self.state {
            State::ChunkSize if length > MAX_CHUNK_LINE => Err(Fault::bad("A chunk-size line is too long")),
            State::ChunkSize => Ok(()),
            _ => self.head.check_size(length, self.limits),
        }
    }

    /// Judges a line without its line feed.
    fn complete(&mut self, line: &[u8]) -> Result<(), Fault> {
        // RFC 9112 §2.2: a lone LF may be taken as a line end, which is how two parsers come to disagree.
        let line = line.strip_suffix(b"\r").ok_or(Fault::bad("A line does not end with CR LF"))?;
        match self.state {
            State::ChunkSize => {
                self.state = match head::chunk_size(line)? {
                    0 => {
                        self.head.begin_trailers();
                        State::Trailer
                    }
                    size => State::Chunk(size),
                };
            }
            State::Trailer if line.is_empty() => self.end_of_request(),
            State::Trailer => self.head.trailer(line, self.limits)?,
            _ => {
                if let Some(body) = self.head.line(line, self.limits)? {
                    self.begin_body(body);
                }
            }
        }
        Ok(())
    }

    fn begin_body(&mut self, body: Body) {
        match body {
            Body::Length(0) => self.end_of_request(),
            Body::Length(length) => self.state = State::Length(length),
            Body::Chunked => self.state = State::ChunkSize,
        }
    }

    fn end_of_request(&mut self) {
        self.state = if self.head.asks_for_upgrade() { State::Undecided } else { State::Head };
        self.head = Head::default();
    }
}

fn shorter(left: u64, length: usize) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}

#[cfg(test)]
mod tests;
