//! HTTP/2 by hand: frames and literal HPACK fields, valid or invalid as a test needs them (RFC 9113, RFC 7541).

use std::io;
use std::time::Duration;

use crate::gate::Gate;
use crate::wire::Wire;

/// Frame types.
pub mod kind {
    /// Carries body bytes.
    pub const DATA: u8 = 0;
    /// Opens a stream, or carries trailers.
    pub const HEADERS: u8 = 1;
    /// Deprecated.
    pub const PRIORITY: u8 = 2;
    /// Ends a stream abruptly.
    pub const RST_STREAM: u8 = 3;
    /// Parameters of the connection.
    pub const SETTINGS: u8 = 4;
    /// Only servers may send it.
    pub const PUSH_PROMISE: u8 = 5;
    /// Asks for an acknowledgement.
    pub const PING: u8 = 6;
    /// Ends the connection.
    pub const GOAWAY: u8 = 7;
    /// Grants flow-control credit.
    pub const WINDOW_UPDATE: u8 = 8;
    /// Continues a field block.
    pub const CONTINUATION: u8 = 9;
}

/// The stream ends with this frame.
pub const END_STREAM: u8 = 1;
/// The field block ends with this frame.
pub const END_HEADERS: u8 = 4;

/// A frame as received.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field block of literals that are never indexed and not Huffman-coded, so that any bytes are possible.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        string(&mut bytes, name.as_ref());
        string(&mut bytes, value.as_ref());
    }
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push(u8::try_from(length % 128).unwrap() | 0x80);
            length /= 128;
        }
        bytes.push(u8::try_from(length).unwrap());
    }
    bytes.extend_from_slice(text);
}

/// A HEADERS frame that ends its field block.
pub fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(stream: u32, flags: u8, fields: &[(N, V)]) -> Vec<u8> {
    frame(kind::HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// How a stream, or its connection, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A response with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The connection was closed without an error code.
    Closed,
}

/// A connection on which frames are sent by hand.
pub struct Frames {
    wire: Wire,
    /// The head of a frame whose payload has not arrived in time.
    head: Option<Vec<u8>>,
}

impl Frames {
    /// Connects over TLS with ALPN `h2`, and sends the preface and empty settings.
    pub fn connect(gate: &Gate) -> Self {
        Self::silent(gate).greeted()
    }

    /// Like [`Self::connect`], on an existing connection.
    pub fn over(wire: Wire) -> Self {
        Self { wire, head: None }.greeted()
    }

    fn greeted(mut self) -> Self {
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice());
        self.send(frame(kind::SETTINGS, 0, 0, &[]));
        self
    }

    /// Connects without sending anything.
    pub fn silent(gate: &Gate) -> Self {
        let config = gate.settings.authority().client_config(&["h2"], None);
        Self { wire: Wire::tls(gate.public, "localhost", config).unwrap(), head: None }
    }

    /// Sends bytes. Reading reveals whether the other side has closed the connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.wire.send(bytes));
    }

    /// Sends bytes on a connection that must be open.
    ///
    /// # Errors
    /// When the other side has closed or reset it.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// Reads a frame. Settings and pings are acknowledged. A partial frame is kept for the next call.
    ///
    /// # Errors
    /// When nothing arrives in time, or the connection has ended.
    pub fn read(&mut self) -> io::Result<Frame> {
        let head = match self.head.take() {
            Some(head) => head,
            None => self.wire.take(9)?,
        };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let payload = match self.wire.take(length) {
            Ok(payload) => payload,
            Err(error) => {
                self.head = Some(head);
                return Err(error);
            }
        };
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if matches!(frame.kind, kind::SETTINGS | kind::PING) && frame.flags & 1 == 0 {
            let echoed: &[u8] = if frame.kind == kind::PING { &frame.payload } else { &[] };
            self.send(self::frame(frame.kind, 1, 0, echoed));
        }
        Ok(frame)
    }

    /// How long a read may take before it fails.
    pub fn set_patience(&self, limit: Duration) {
        self.wire.set_patience(limit);
    }

    /// Reads until this stream has a response or has ended, or the connection ends.
    pub fn end_of(&mut self, stream: u32) -> End {
        for _ in 0..100_000 {
            let frame = match self.read() {
                Ok(frame) => frame,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("no end of stream {stream} in time");
                }
                Err(_) => return End::Closed,
            };
            match frame.kind {
                kind::HEADERS if frame.stream == stream => return End::Status(status_of(&frame)),
                kind::RST_STREAM if frame.stream == stream => return End::Reset(number(&frame.payload)),
                // A graceful GOAWAY (NO_ERROR) lets streams finish.
                kind::GOAWAY if number(&frame.payload[4..]) != 0 => {
                    return End::GoAway(number(&frame.payload[4..]));
                }
                _ => {}
            }
        }
        panic!("endless frames");
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// The status of a response: its first field, indexed (RFC 7541 appendix A) or literal with the indexed name `:status`.
fn status_of(frame: &Frame) -> u16 {
    let block = &frame.payload;
    // A dynamic table size update may come first.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block.as_slice() };
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        0x48 | 0x08 | 0x18 => literal_status(&block[1..]),
        // A repeated block of our own would come from the dynamic table; each test uses one request per connection.
        other => panic!("a field block that starts with {other:#x}"),
    }
}

/// Decodes a status as text, Huffman-coded or not (RFC 7541 section 5.2).
pub fn literal_status(bytes: &[u8]) -> u16 {
    let length = usize::from(bytes[0] & 0x7f);
    let text = &bytes[1..=length];
    if bytes[0] & 0x80 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    // Huffman: the digits 0, 1, 2 have 5 bits (0, 1, 2), 3 to 9 have 6 bits (0x19 to 0x1f).
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let value =
        |from: usize, n: usize| bits[from..from + n].iter().fold(0u8, |number, bit| number << 1 | bit);
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let digit = if value(at, 5) <= 2 {
            at += 5;
            value(at - 5, 5)
        } else {
            at += 6;
            value(at - 6, 6) - 0x19 + 3
        };
        status = status * 10 + u16::from(digit);
    }
    status
}
