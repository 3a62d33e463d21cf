//! Responses as upstreams send them, valid and invalid, whole and byte by byte.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::BytesMut;

use super::body::{BodyDecoder, ResponsePiece};
use super::*;

/// The result of a response read to the end of the connection.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// Complete: status, body, number of trailers, whether the connection may be reused.
    Complete(u16, Cow<'static, str>, usize, bool),
    /// The connection ended before the response did.
    Truncated,
    /// Invalid.
    Bad(BadAnswer),
}

/// Reads `bytes` in pieces of `step`, as they would arrive from a socket.
fn read(method: &Method, bytes: &[u8], step: usize) -> Read {
    let mut input = bytes.chunks(step);
    let mut buffer = BytesMut::new();
    let mut end = HeadEnd::default();
    let head = loop {
        match head(&mut buffer, &mut end, method) {
            Ok(Some(head)) => break head,
            Ok(None) => match input.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Read::Truncated,
            },
            Err(bad) => return Read::Bad(bad),
        }
    };
    let mut body = BodyDecoder::new(head.framing);
    let (mut data, mut trailers) = (Vec::new(), 0);
    loop {
        match body.next(&mut buffer) {
            Ok(ResponsePiece::Data(piece)) => data.extend_from_slice(&piece),
            Ok(ResponsePiece::Trailers(fields)) => trailers = fields.len(),
            Ok(ResponsePiece::End) => break,
            Ok(ResponsePiece::More) => match input.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None if body.ends_with_connection() => break,
                None => return Read::Truncated,
            },
            Err(bad) => return Read::Bad(bad),
        }
    }
    let rest: usize = buffer.len() + input.map(<[u8]>::len).sum::<usize>();
    let data = String::from_utf8(data).unwrap().into();
    Read::Complete(head.status.as_u16(), data, trailers, head.persistent && rest == 0)
}

const fn complete(status: u16, body: &'static str, persistent: bool) -> Read {
    Read::Complete(status, Cow::Borrowed(body), 0, persistent)
}

const fn ok(body: &'static str) -> Read {
    complete(200, body, true)
}

const fn trailers(body: &'static str, count: usize) -> Read {
    Read::Complete(200, Cow::Borrowed(body), count, true)
}

fn check(method: &Method, bytes: &[u8], expected: &Read) {
    for step in [bytes.len().max(1), 1, 2, 3, 7] {
        let got = read(method, bytes, step);
        assert_eq!(
            got,
            *expected,
            "{method} answered {:?} in steps of {step}",
            String::from_utf8_lossy(bytes)
        );
    }
}

/// Whole responses to GET.
const ANSWERS: &[(&str, Read)] = &[
    // Lengths
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", ok("hello")),
    ("HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhello", ok("hello")),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ok("")),
    // White space before a colon is removed (RFC 9112 §5.1), and hides nothing.
    ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", ok("hello")),
    (
        "HTTP/1.1 200 OK\r\ncontent-length \t : 5\r\ncontent-length: 6\r\n\r\nhello",
        Read::Bad(BadAnswer::ContentLength),
    ),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding\t: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ok("hello")),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding : chunked\r\n\r\n",
        Read::Bad(BadAnswer::TransferEncoding),
    ),
    ("HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 5\r\n\r\nhello", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\n : 1\r\ncontent-length: 5\r\n\r\nhello", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", ok("hello")),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        Read::Bad(BadAnswer::ContentLength),
    ),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello", Read::Bad(BadAnswer::ContentLength)),
    ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", Read::Bad(BadAnswer::ContentLength)),
    ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", Read::Bad(BadAnswer::ContentLength)),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nhello", Read::Bad(BadAnswer::ContentLength)),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5 5\r\n\r\nhello", Read::Bad(BadAnswer::ContentLength)),
    ("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nhello", Read::Bad(BadAnswer::ContentLength)),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\nhello",
        Read::Bad(BadAnswer::ContentLength),
    ),
    ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", Read::Truncated),
    ("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nhello", Read::Truncated),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n", complete(200, "hello", false)),
    // Ended by the close of the connection
    ("HTTP/1.1 200 OK\r\n\r\nhello", complete(200, "hello", false)),
    ("HTTP/1.0 200 OK\r\n\r\nhello", complete(200, "hello", false)),
    ("HTTP/1.1 200 OK\r\n\r\n", complete(200, "", false)),
    // Persistence
    ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", complete(200, "hello", false)),
    ("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 5\r\n\r\nhello", ok("hello")),
    ("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello", ok("hello")),
    ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", complete(200, "hello", false)),
    (
        "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\ncontent-length: 5\r\n\r\nhello",
        complete(200, "hello", false),
    ),
    // No body
    ("HTTP/1.1 204 No Content\r\n\r\n", complete(204, "", true)),
    ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", complete(204, "", true)),
    ("HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", complete(304, "", true)),
    ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", complete(304, "", true)),
    ("HTTP/1.1 204 No Content\r\n\r\nhello", complete(204, "", false)),
    ("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", complete(103, "", true)),
    // Codings
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        Read::Bad(BadAnswer::TransferEncoding),
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Read::Bad(BadAnswer::TransferEncoding),
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Read::Bad(BadAnswer::TransferEncoding),
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        Read::Bad(BadAnswer::TransferEncoding),
    ),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nhello", Read::Bad(BadAnswer::TransferEncoding)),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        Read::Bad(BadAnswer::TransferEncoding),
    ),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n", Read::Bad(BadAnswer::TransferEncoding)),
    (
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Read::Bad(BadAnswer::TransferEncoding),
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", ok("")),
    // Heads
    ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", ok("")),
    ("HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n", ok("")),
    ("HTTP/1.1 200 O\u{fc}\r\ncontent-length: 0\r\n\r\n", ok("")),
    ("HTTP/1.1 200 OK\ncontent-length: 5\n\nhello", ok("hello")),
    ("HTTP/1.1 200 OK\r\n name: x\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\nname: x\r\n y\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\nname: x\r\n\ty: z\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\nname: x\ry: z\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\nname: x\0\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\nna me: x\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\n: x\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\nname\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 099 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 20 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 2000 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 2x0 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/2.0 200 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.2 200 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("ICY 200 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("SSH-2.0-OpenSSH_9.2\r\n\r\n", Read::Bad(BadAnswer::Head)),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", Read::Truncated),
    ("", Read::Truncated),
];

/// The part after the head of a chunked response.
const CHUNKED: &[(&str, Read)] = &[
    ("0\r\n\r\n", ok("")),
    ("5\r\nhello\r\n0\r\n\r\n", ok("hello")),
    ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", ok("hello world")),
    ("5;a=b;c=\"d\"\r\nhello\r\n0;z\r\n\r\n", ok("hello")),
    ("5 ;a\r\nhello\r\n0\r\n\r\n", ok("hello")),
    ("00000005\r\nhello\r\n0000\r\n\r\n", ok("hello")),
    ("B\r\nhello world\r\n0\r\n\r\n", ok("hello world")),
    ("1b\r\nabcdefghijklmnopqrstuvwxyz.\r\n0\r\n\r\n", ok("abcdefghijklmnopqrstuvwxyz.")),
    ("5\r\nhello\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", trailers("hello", 2)),
    ("5\r\nhello\r\n0\r\nx-sum : 1\r\nx-more\t: a : b\r\n\r\n", trailers("hello", 2)),
    ("5\r\nhello\r\n0\r\nx sum: 1\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("5\r\nhello\r\n0\r\ncontent-length: 9\r\ntransfer-encoding: x\r\n\r\n", ok("hello")),
    ("5\r\nhello\r\n0\r\n\r\nmore", complete(200, "hello", false)),
    ("5\r\nhello\r\n0\r\nbroken\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("\r\n", Read::Bad(BadAnswer::Chunk)),
    ("5\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("5\r\nhello\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("5\r\nhelloX\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("4\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("0x5\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("+5\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("-1\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    (" 5\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("5 5\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("5;a\rb\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("5\r\r\nhello\r\n0\r\n\r\n", Read::Bad(BadAnswer::Chunk)),
    ("10000000000000000\r\n", Read::Bad(BadAnswer::Chunk)),
    ("ffffffffffffffff\r\nhello", Read::Truncated),
    ("5\r\nhel", Read::Truncated),
    ("5\r\nhello\r\n", Read::Truncated),
    ("5\r\nhello\r\n0\r\n", Read::Truncated),
    ("5\r\nhello\r\n0\r\nx-sum: 1\r\n", Read::Truncated),
];

#[test]
fn answers_to_get() {
    for (bytes, expected) in ANSWERS {
        check(&Method::GET, bytes.as_bytes(), expected);
    }
    for (rest, expected) in CHUNKED {
        let bytes = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{rest}");
        check(&Method::GET, bytes.as_bytes(), expected);
    }
}

#[test]
fn answers_to_head_have_no_body() {
    for bytes in [
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        check(&Method::HEAD, bytes.as_bytes(), &complete(200, "", true));
    }
}

#[test]
fn limits_are_kept() {
    let head = |fields: usize, length: usize| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n".to_vec();
        for number in 1..fields {
            bytes.extend_from_slice(format!("x-{number}: ").as_bytes());
            bytes.resize(bytes.len() + length, b'a');
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    };
    let parse = |bytes: &[u8]| read(&Method::GET, bytes, bytes.len());
    assert_eq!(parse(&head(256, 10)), complete(200, "", true));
    assert_eq!(parse(&head(257, 10)), Read::Bad(BadAnswer::TooLarge));
    assert_eq!(parse(&head(2, 65_000)), complete(200, "", true));
    assert_eq!(parse(&head(2, 66_000)), Read::Bad(BadAnswer::TooLarge));
    assert_eq!(parse(&vec![b'a'; 70_000]), Read::Bad(BadAnswer::TooLarge));

    let chunked = |extension: usize, chunks: usize| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..chunks {
            bytes.extend_from_slice(b"1;");
            bytes.resize(bytes.len() + extension, b'a');
            bytes.extend_from_slice(b"\r\nx\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    };
    assert_eq!(parse(&chunked(100, 2)), complete(200, "xx", true));
    assert_eq!(parse(&chunked(20_000, 1)), Read::Bad(BadAnswer::Chunk));
    assert_eq!(parse(&chunked(100, 200)), Read::Bad(BadAnswer::Chunk));
    let endless =
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;".to_vec(), vec![b'a'; 20_000]].concat();
    assert_eq!(read(&Method::GET, &endless, 1000), Read::Bad(BadAnswer::Chunk));
    let endless =
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ".to_vec(), vec![b'a'; 20_000]]
            .concat();
    assert_eq!(read(&Method::GET, &endless, 1000), Read::Bad(BadAnswer::Chunk));
}

#[test]
fn what_has_no_end_is_given_up_at_the_first_byte_above_its_limit() {
    let head = |length| {
        let bytes = [&b"HTTP/1.1 200 OK\r\nx: "[..], &vec![b'a'; length]].concat();
        super::head(&mut BytesMut::from(&bytes[..length]), &mut HeadEnd::default(), &Method::GET)
    };
    assert_eq!(head(64 * 1024), Ok(None));
    assert_eq!(head(64 * 1024 + 1), Err(BadAnswer::TooLarge));

    // A size of sixteen digits followed by extensions.
    let size = |extensions| {
        let bytes = [&b"0000000000000001"[..], &vec![b';'; extensions]].concat();
        BodyDecoder::new(ResponseFraming::Chunked).next(&mut BytesMut::from(&bytes[..]))
    };
    assert_eq!(
        size(16 * 1024 + 1),
        Ok(ResponsePiece::More),
        "the end of the line may be all that is missing"
    );
    assert_eq!(size(16 * 1024 + 2), Err(BadAnswer::Chunk));
}

#[test]
fn trailers_have_one_limit_however_they_come() {
    let answer = |section: usize| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ".to_vec();
        bytes.resize(bytes.len() + section - "x: \r\n\r\n".len(), b'a');
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    };
    check(&Method::GET, &answer(16 * 1024), &trailers("", 1));
    check(&Method::GET, &answer(16 * 1024 + 1), &Read::Bad(BadAnswer::Chunk));
}

#[test]
fn fields_of_the_hop_stay_behind() {
    let bytes = b"HTTP/1.1 200 OK\r\nconnection: close, x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nupgrade: h2c\r\n\
        proxy-authenticate: Basic\r\nwww-authenticate: Bearer realm=\"upstream\"\r\nset-cookie: a\r\nset-cookie: b\r\n\
        content-length: 0\r\n\r\n";
    let head = head(&mut BytesMut::from(&bytes[..]), &mut HeadEnd::default(), &Method::GET).unwrap().unwrap();
    let mut names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "set-cookie", "set-cookie", "www-authenticate"]);

    for (connection, left) in [
        ("x-mine", &["content-length"][..]),
        ("keep-alive, X-Mine", &["content-length"]),
        ("keep-alive", &["content-length", "x-mine"]),
        ("Close", &["content-length", "x-mine"]),
    ] {
        let bytes =
            format!("HTTP/1.1 200 OK\r\nconnection: {connection}\r\nx-mine: 1\r\ncontent-length: 0\r\n\r\n");
        let mut buffer = BytesMut::from(bytes.as_bytes());
        let head = super::head(&mut buffer, &mut HeadEnd::default(), &Method::GET).unwrap().unwrap();
        let mut names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, left, "{connection}");
    }

    let bytes = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly";
    let mut buffer = BytesMut::from(&bytes[..]);
    let head = super::head(&mut buffer, &mut HeadEnd::default(), &Method::GET).unwrap().unwrap();
    assert_eq!(head.headers.get("upgrade").unwrap(), "websocket");
    assert_eq!(head.headers.get("connection").unwrap(), "upgrade");
    assert_eq!(&buffer[..], b"early");
}

#[test]
fn the_log_tells_the_faults_of_a_response_apart() {
    let faults = [
        BadAnswer::Head,
        BadAnswer::TooLarge,
        BadAnswer::ContentLength,
        BadAnswer::TransferEncoding,
        BadAnswer::Chunk,
        BadAnswer::Switch,
        BadAnswer::Interim,
        BadAnswer::Http2,
    ];
    let told: HashSet<String> = faults.iter().map(BadAnswer::to_string).collect();
    assert_eq!(told.len(), faults.len(), "{told:?}");
}
