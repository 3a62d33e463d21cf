//! Raw requests as tables: each whole, in pieces, and after another one.

use ::http::StatusCode;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::body::{BodyReader, MAX_CHUNK_LINE, RequestPiece};
use super::head::{HeadReader, Http1Fault};
use super::lines::BodyFraming;
use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 20 };

/// The outcome of the bytes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// This many whole requests, and nothing more.
    Whole(usize),
    /// More bytes are needed.
    Part,
    /// A switch of protocols was requested; this many bytes after the request wait.
    Undecided(usize),
    /// Rejected with this status.
    Refused(u16),
}
use Outcome::{Part, Refused, Undecided, Whole};

/// Reads the requests of one connection as they arrive.
struct Reader {
    heads: HeadReader,
    inbox: BytesMut,
    /// The body being read, and whether the request asks for another protocol.
    body: Option<(BodyReader, bool)>,
    whole: usize,
    /// The body bytes taken.
    data: Vec<u8>,
}

impl Reader {
    fn new(limits: HeadLimits) -> Self {
        let heads = HeadReader::new(limits);
        Self { heads, inbox: BytesMut::new(), body: None, whole: 0, data: Vec::new() }
    }

    /// Reads as far as possible; returns whether a switch of protocols was requested.
    fn feed(&mut self, input: &[u8]) -> Result<bool, Http1Fault> {
        self.inbox.extend_from_slice(input);
        loop {
            let Some((body, switches)) = &mut self.body else {
                let Some(head) = self.heads.read(&mut self.inbox)? else { return Ok(false) };
                self.body = Some((BodyReader::new(head.body, LIMITS), head.wants_upgrade));
                continue;
            };
            match body.next(&mut self.inbox)? {
                RequestPiece::Data(data) => self.data.extend_from_slice(&data),
                RequestPiece::Trailers(_) => {}
                RequestPiece::More => return Ok(false),
                RequestPiece::End => {
                    self.whole += 1;
                    let switches = *switches;
                    self.body = None;
                    if switches {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn is_between_requests(&self) -> bool {
        self.body.is_none() && self.inbox.is_empty()
    }
}

/// Feeds `input` in pieces of `size`.
fn run(input: &[u8], size: usize) -> Outcome {
    let (mut reader, mut fed) = (Reader::new(LIMITS), 0);
    for piece in input.chunks(size) {
        fed += piece.len();
        match reader.feed(piece) {
            Ok(false) => {}
            Ok(true) => return Undecided(reader.inbox.len() + input.len() - fed),
            Err(fault) => return Refused(fault.status.as_u16()),
        }
    }
    if reader.is_between_requests() { Whole(reader.whole) } else { Part }
}

const FIRST: &[u8] = b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

fn check(rows: &[(&str, Outcome)]) {
    for &(raw, expected) in rows {
        let raw = raw.as_bytes();
        for size in [1, 2, 3, 7, 64, raw.len().max(1)] {
            assert_eq!(run(raw, size), expected, "in pieces of {size}: {}", raw.escape_ascii());
        }
        // Earlier requests do not change the outcome.
        let piped = [FIRST, raw].concat();
        let expected = if let Whole(whole) = expected { Whole(whole + 1) } else { expected };
        assert_eq!(run(&piped, piped.len()), expected, "piped: {}", raw.escape_ascii());
    }
}

#[test]
fn request_lines_are_read_or_rejected() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET /a/b?c=d&e HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET http://other:81/b?c HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET https://a HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET HTTP://A/ HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.0\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Whole(1)),
        ("BREW-IT! / HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("\tGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400)),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / \r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/11\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/+1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.11\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/a.b\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.b\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/a.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / ICY/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(505)),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(505)),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused(505)),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", Refused(505)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(505)),
        ("/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET, / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(501)),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
        ("connect a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("\x16\x03\x01\x02\0\x01\0\x01", Refused(400)),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refused(400)),
    ]);
}

#[test]
fn targets_are_read_or_rejected() {
    check(&[
        ("GET  HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("options * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET #a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /a?b\x1fc HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET /\u{e9}?\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET /a?{\"b\":[`<c>`\\^|]} HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        // The decision judges what a path may contain.
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", Whole(1)),
        ("GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http:a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET ://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ]);
}

#[test]
fn hosts_are_read_or_rejected() {
    check(&[
        ("GET / HTTP/1.1\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", Refused(400)),
        ("GET http://a/ HTTP/1.1\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: \t \r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost:a\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHOST: \ta.example:8443 \r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a_b-c.~d\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: [fe80::1]:443\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\u{e9}\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a%00\r\n\r\n", Refused(400)),
    ]);
}

#[test]
fn fields_are_read_or_rejected() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\nA:\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\tc \u{e9}\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b:c\r\n\r\n", Whole(1)),
        // Names as long as those that frame the message.
        ("GET / HTTP/1.1\r\nHost: a\r\nFrom: b c\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\nAccept-Charset: b\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA\t: b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\tc\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA(: c\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: c\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA\0: c\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\x01\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\x1bc\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\x7f\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\x0bc\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\n\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", Refused(400)),
        // At the line itself, whatever follows.
        ("GET / HTTP/1.1\r\nHost: a\r\nA B: c\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n: c\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: \x01b\x01\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n", Part),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r", Part),
        ("GET / HT", Part),
        ("\r\n", Part),
    ]);
}

#[test]
fn lengths_are_read_or_rejected() {
    check(&[
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Whole(1)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Whole(1)),
        ("POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:\t0003 \r\n\r\nabc", Whole(1)),
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", Whole(1)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", Part),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551613\r\n\r\n", Part),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", Part),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1;\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: a\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \u{661}\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-length: 2\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", Whole(2)),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Whole(2),
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nabc\r\n\r\n", Refused(400)),
    ]);
}

#[test]
fn codings_are_read_or_rejected() {
    check(&[
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Whole(1)),
        ("POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\tCHUNKED \r\n\r\n0\r\n\r\n", Whole(1)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked identity\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\u{a0}\r\n\r\n", Refused(501)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0b\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", Refused(400)),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refused(400),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            Refused(501),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refused(400),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            Refused(400),
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: gzip\r\n\r\n", Whole(1)),
    ]);
}

/// Checks rows that begin after the head of a chunked request.
fn check_chunks(rows: &[(&str, Outcome)]) {
    let rows: Vec<(String, Outcome)> = rows
        .iter()
        .map(|(body, outcome)| {
            (format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"), *outcome)
        })
        .collect();
    let rows: Vec<(&str, Outcome)> = rows.iter().map(|(raw, outcome)| (raw.as_str(), *outcome)).collect();
    check(&rows);
}

#[test]
fn chunks_are_read_or_rejected() {
    let longest = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_CHUNK_LINE - 4));
    let longer = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_CHUNK_LINE - 3));
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_CHUNK_LINE));
    let endless = format!("1;{}", "x".repeat(MAX_CHUNK_LINE));
    check_chunks(&[
        ("3\r\nabc\r\n0\r\n\r\n", Whole(1)),
        ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", Whole(1)),
        ("A\r\n0123456789\r\n0\r\n\r\n", Whole(1)),
        ("a\r\n0123456789\r\n000\r\n\r\n", Whole(1)),
        ("3;a=b\r\nabc\r\n0;c=\"d\"\r\n\r\n", Whole(1)),
        ("2\r\n\r\n\r\n0\r\n\r\n", Whole(1)),
        ("0\r\nA: b\r\n\r\n", Whole(1)),
        ("0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Whole(2)),
        ("3\r\nabc", Part),
        ("3", Part),
        ("0\r\n", Part),
        ("0\r\nA: b\r\n", Part),
        ("ffffffffffffffff\r\na", Part),
        ("10000000000000000\r\n", Refused(400)),
        ("fffffffffffffffff\r\n", Refused(400)),
        ("\r\n", Refused(400)),
        (";\r\n", Refused(400)),
        ("g\r\n", Refused(400)),
        ("0x1\r\na\r\n", Refused(400)),
        ("-1\r\na\r\n", Refused(400)),
        ("+1\r\na\r\n", Refused(400)),
        (" 1\r\na\r\n", Refused(400)),
        ("1 \r\na\r\n", Refused(400)),
        ("1 ;a\r\na\r\n", Refused(400)),
        ("1\t\r\na\r\n", Refused(400)),
        ("1_0\r\n", Refused(400)),
        ("1\na\r\n0\r\n\r\n", Refused(400)),
        ("1\ra\r\n0\r\n\r\n", Refused(400)),
        ("1\r\na\n0\r\n\r\n", Refused(400)),
        ("1\r\na\r0\r\n\r\n", Refused(400)),
        ("1\r\nab\r\n0\r\n\r\n", Refused(400)),
        ("3\r\nab\r\n0\r\n\r\n", Refused(400)),
        ("1;a\nb\r\na\r\n", Refused(400)),
        ("1;\0\r\na\r\n", Refused(400)),
        ("1;a\rb\r\na\r\n", Refused(400)),
        ("0\n\n", Refused(400)),
        ("0\r\n\n", Refused(400)),
        ("0\r\nA : b\r\n\r\n", Refused(400)),
        ("0\r\n b\r\n\r\n", Refused(400)),
        ("0\r\nA: b\n\r\n", Refused(400)),
        ("0\r\nA: \0\r\n\r\n", Refused(400)),
        ("0\r\nContent-Length: 5\r\n\r\n", Refused(400)),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", Refused(400)),
        ("0\r\nHost: b\r\n\r\n", Refused(400)),
        ("0\r\n\r\nX", Part),
        ("0\r\n\r\n\r\n\r\n", Refused(400)),
        (&longest, Whole(1)),
        (&longer, Refused(400)),
        (&long, Refused(400)),
        (&endless, Refused(400)),
    ]);
}

#[test]
fn limits_are_reached_at_the_first_byte_above_them() {
    let head = |bytes: usize| {
        let (start, end) = ("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
    };
    let line = |bytes: usize| {
        let (start, end) = ("GET /", " HTTP/1.1\r\n");
        format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
    };
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let trailers = |count: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        format!("{head}{}\r\n", "X: y\r\n".repeat(count))
    };
    // The second line fills the section up to its total size, line end included.
    let trailer_bytes = |bytes: usize| {
        let (first, second) = ("x".repeat(495), "x".repeat(bytes - 507));
        format!("0\r\nX: {first}\r\nY: {second}\r\n\r\n")
    };
    assert_eq!(trailer_bytes(1024).len() - "0\r\n".len(), 1024);
    check_chunks(&[
        (&trailer_bytes(1024), Whole(1)),
        (&trailer_bytes(1025), Refused(431)),
        (&trailer_bytes(1200), Refused(431)),
        (trailer_bytes(1100).trim_end(), Refused(431)),
    ]);
    let cut = |text: String| text.trim_end_matches(['\r', '\n']).to_owned();
    for (raw, outcome) in [
        (head(1024), Whole(1)),
        (head(1025), Refused(431)),
        (cut(head(1029)), Refused(431)),
        (line(1022) + "\r\n", Refused(400)),
        (line(1025), Refused(414)),
        (cut(line(1027)), Refused(414)),
        (fields(20), Whole(1)),
        (fields(21), Refused(431)),
        (trailers(20), Whole(1)),
        (trailers(21), Refused(431)),
    ] {
        check(&[(&raw, outcome)]);
    }
    let roomy = HeadLimits { bytes: 100_000, fields: 20 };
    let longest = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(65_533));
    let mut reader = Reader::new(roomy);
    assert_eq!((reader.feed(longest.as_bytes()), reader.whole), (Ok(false), 1));
    let fault = Reader::new(roomy).feed(format!("GET /{} HTTP/1.1\r\n", "x".repeat(65_534)).as_bytes());
    assert_eq!(fault.unwrap_err().status, StatusCode::URI_TOO_LONG);
}

#[test]
fn what_follows_a_request_for_another_protocol_waits_for_the_decision() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\n", Undecided(0)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade\r\nUpgrade: b\r\n\r\nxyz", Undecided(3)),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: b\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nabxyz",
            Undecided(3),
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: b\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nReferer: b\r\n\r\n", Whole(1)),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\n", Whole(1)),
    ]);
    // If the protocol is not switched, the rest is another request.
    let mut reader = Reader::new(LIMITS);
    let asked = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(reader.feed(asked).unwrap());
    assert!(!reader.feed(b"").unwrap());
    assert!(reader.is_between_requests());
    assert!(reader.feed(b"\0x\0x").is_err());
}

#[test]
fn a_body_that_is_broken_stays_so() {
    let mut reader = Reader::new(LIMITS);
    let broken = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nX";
    assert!(reader.feed(broken).is_err());
    assert!(reader.feed(b"\r\n1\r\na\r\n0\r\n\r\n").is_err());
}

#[test]
fn the_end_of_a_body_that_has_come_is_taken_with_its_last_chunk() {
    for (raw, data, is_end, left) in [
        (&b"3\r\nabc\r\n0\r\n\r\nGET"[..], &b"abc"[..], true, &b"GET"[..]),
        (b"3\r\nabc\r\n0\r\n\r", b"abc", false, b"\r\n0\r\n\r"),
        (b"3\r\nabc\r\n0\r\nA: b\r\n\r\n", b"abc", false, b"\r\n0\r\nA: b\r\n\r\n"),
        (b"4\r\nabc", b"abc", false, b""),
    ] {
        let (mut body, mut inbox) = (BodyReader::new(BodyFraming::Chunked, LIMITS), BytesMut::from(raw));
        assert_eq!(body.next(&mut inbox), Ok(RequestPiece::Data(Bytes::copy_from_slice(data))));
        assert_eq!((body.is_end(), &inbox[..]), (is_end, left), "{}", raw.escape_ascii());
    }
}

#[test]
fn how_much_of_a_body_is_left_is_known_by_its_length_and_at_its_end() {
    let (mut body, mut inbox) = (BodyReader::new(BodyFraming::Length(5), LIMITS), BytesMut::from("abc"));
    assert_eq!(body.remaining(), Some(5));
    assert!(body.next(&mut inbox).is_ok());
    assert_eq!(body.remaining(), Some(2));
    inbox.extend_from_slice(b"de");
    assert!(body.next(&mut inbox).is_ok());
    assert_eq!(body.remaining(), Some(0));
    assert_eq!(BodyReader::new(BodyFraming::Length(0), LIMITS).remaining(), Some(0));
    let (mut body, mut inbox) =
        (BodyReader::new(BodyFraming::Chunked, LIMITS), BytesMut::from("1\r\na\r\n0\r\n\r\n"));
    assert_eq!(body.remaining(), None);
    assert!(body.next(&mut inbox).is_ok());
    assert_eq!(body.remaining(), Some(0));
}

#[test]
fn a_fault_is_told_in_its_own_words() {
    let fault = HeadReader::new(LIMITS).read(&mut BytesMut::from("GET /\r\n")).unwrap_err();
    assert_eq!(fault.to_string(), "The request line has no HTTP version");
}

#[test]
fn a_head_becomes_what_was_sent() {
    let mut inbox = BytesMut::from(
        &b"\r\nPATCH /a%2Fb?c=d&e HTTP/1.1\r\nHost:  a:81 \r\nX-Empty:\r\nX-TWO: 1\r\nx-two:\t\xff 2\r\nContent-Length: 3\r\n\r\nabcGET"
            [..],
    );
    let mut reader = HeadReader::new(LIMITS);
    let head = reader.read(&mut inbox).unwrap().unwrap();
    let parts = head.head;
    assert_eq!((parts.method.as_str(), parts.version), ("PATCH", Version::HTTP_11));
    assert_eq!(&parts.target.as_bytes()[..], b"/a%2Fb?c=d&e");
    let fields: Vec<_> =
        parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let two: Vec<_> = parts.headers.get_all("x-two").iter().map(|value| value.as_bytes().to_vec()).collect();
    assert_eq!(fields.len(), 5);
    assert!(fields.contains(&("host", b"a:81")) && fields.contains(&("x-empty", b"")), "{fields:?}");
    assert_eq!(two, [b"1".to_vec(), b"\xff 2".to_vec()]);
    assert_eq!(&inbox[..], b"abcGET");
    assert!(head.keep_alive && !head.wants_upgrade);
    for (raw, keep_alive) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        let head = HeadReader::new(LIMITS).read(&mut BytesMut::from(raw)).unwrap().unwrap();
        assert_eq!(head.keep_alive, keep_alive, "{raw}");
    }
}

#[test]
fn the_method_of_a_head_that_is_refused_is_known() {
    let (mut reader, mut inbox) = (HeadReader::new(LIMITS), BytesMut::from("HEAD / HTTP/1.1\r\nHost: a"));
    assert!(reader.read(&mut inbox).unwrap().is_none());
    assert_eq!(reader.method().unwrap(), ::http::Method::HEAD);
}

#[test]
fn every_target_that_passes_is_one_that_is_kept_byte_for_byte() {
    for byte in 0..=255u8 {
        for (before, after) in [("/", ""), ("/a", "b"), ("/a?", ""), ("/a?b", "c"), ("http://a/", "")] {
            let target = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            let request = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            if let Ok(head) = HeadReader::new(LIMITS).read(&mut BytesMut::from(&request[..])) {
                let sent = &head.unwrap().head.target;
                assert!(sent.as_bytes().ends_with(&target[before.len()..]), "{byte:#x}");
            }
        }
    }
}

/// Fragments of a connection's bytes, chosen so that a row is often almost a request.
const PARTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"POST /b?c HTTP/1.1\r\nhost: a\r\n",
    b"GET ",
    b"/",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"Host: a",
    b"X: y",
    b"X-Long: 0123456789",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close, upgrade\r\n",
    b"Upgrade: b\r\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"3;x=y\r\nabc\r\n0\r\n\r\n",
    b"0\r\n",
    b"Trailer: x",
    b"\0",
    b"\xff",
    b"#",
    b"%",
    b"\"",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn bytes_are_the_same_requests_however_they_come_and_no_parser_reads_others(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 1..12),
        size in 1_usize..40,
    ) {
        let raw = parts.concat();
        let expected = run(&raw, raw.len());
        prop_assert_eq!(run(&raw, size), expected, "in pieces of {}: {}", size, raw.escape_ascii());
        // A head that is accepted is the same head to another strict parser.
        let mut inbox = BytesMut::from(&raw[..]);
        if let Ok(Some(request)) = HeadReader::new(LIMITS).read(&mut inbox) {
            let (length, head) = (raw.len() - inbox.len(), request.head);
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut fields);
            prop_assert_eq!(parsed.parse(&raw), Ok(httparse::Status::Complete(length)));
            prop_assert_eq!(parsed.method, Some(head.method.as_str()));
            prop_assert_eq!(parsed.path.map(str::as_bytes), Some(&head.target.as_bytes()[..]));
            prop_assert_eq!(parsed.headers.len(), head.headers.len());
            for field in parsed.headers {
                let mut values = head.headers.get_all(field.name).iter();
                prop_assert!(values.any(|value| value.as_bytes() == field.value), "{}", field.name);
            }
        }
    }
}
