//! HTTP/2 as attackers write it: frames and fields by hand over TLS, with an HTTP/1.1 upstream behind the gate
//! that records what reaches it (RFC 9113 §8.1.1, §8.2, §8.3, §10.3: a malformed request is never translated).

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::pinned::Pinned;
use testkit::frames::{self, END_HEADERS, END_STREAM, End, Frames, kind};
use testkit::gate::Gate;
use testkit::raw_upstream::{Next, RawUpstream, Seen};
use testkit::settings::Settings;
use testkit::tokens::Issuer;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The expected outcome of a row; the exact one is in the data.
#[derive(Debug)]
enum Expect {
    /// A status that rejects it, or the end of the stream or connection; nothing reaches the upstream.
    Refuse,
    /// The connection ends with an error, or allows no new stream.
    EndConnection,
    /// One request reaches the upstream with this target.
    Pass(&'static str),
    /// Like [`Refuse`], but the start of a request may have been forwarded before its end was known.
    Broken,
}

use Expect::{Broken, EndConnection, Pass, Refuse};

struct Row {
    name: String,
    frames: Vec<u8>,
    expect: Expect,
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    bearer: String,
}

impl Table {
    fn good(&self) -> Fields {
        self.fields(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "api.test"),
            (":path", "/h2"),
            ("authorization", &self.bearer),
        ])
    }

    fn fields(&self, fields: &[(&str, &str)]) -> Fields {
        fields.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
    }

    fn row(&mut self, name: &str, frames: Vec<u8>, expect: Expect) {
        self.rows.push(Row { name: name.to_owned(), frames, expect });
    }

    /// One stream with these fields and no body.
    fn request(&mut self, name: &str, fields: &Fields, expect: Expect) {
        self.row(name, frames::headers(1, END_STREAM, fields), expect);
    }

    /// The valid fields with one pseudo-field replaced.
    fn with(&mut self, name: &str, value: impl AsRef<[u8]>, expect: Expect) {
        let mut fields = self.good();
        for field in &mut fields {
            if field.0 == name.as_bytes() {
                field.1 = value.as_ref().to_vec();
            }
        }
        let shown = String::from_utf8_lossy(value.as_ref()).into_owned();
        self.request(&format!("{name} {shown:?}"), &fields, expect);
    }

    fn without(&mut self, name: &str, expect: Expect) {
        let fields = self.good().into_iter().filter(|(n, _)| n != name.as_bytes()).collect();
        self.request(&format!("no {name}"), &fields, expect);
    }

    /// The valid fields followed by these.
    fn and(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>, expect: Expect) {
        let mut fields = self.good();
        let (name, value) = (name.as_ref().to_vec(), value.as_ref().to_vec());
        let shown = format!("{:?}: {:?}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&value));
        fields.push((name, value));
        self.request(&shown.chars().take(80).collect::<String>(), &fields, expect);
    }
}

struct Scene {
    gate: Gate,
    upstream: RawUpstream,
    complete: Arc<Mutex<Vec<Seen>>>,
    issuer: Issuer,
}

fn scene() -> Scene {
    let complete = Arc::new(Mutex::new(Vec::new()));
    let list = complete.clone();
    let upstream = RawUpstream::scripted(move |exchange| {
        if exchange.read_body().is_err() {
            return Next::Close;
        }
        list.lock().unwrap().push(exchange.request.clone());
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let issuer = Issuer::new();
    let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    Scene { gate, upstream, complete, issuer }
}

impl Scene {
    fn table(&self) -> Table {
        Table { rows: Vec::new(), bearer: format!("Bearer {}", self.issuer.good()) }
    }

    /// The outcome of a row, or what is wrong with it.
    fn judge(&self, row: &Row) -> Result<String, String> {
        let before = (self.upstream.count(), self.complete.lock().unwrap().len());
        let mut connection = Frames::connect(&self.gate);
        connection.send(&row.frames);
        // A good request on the same connection shows that the gate has read all that came before it.
        let probe: Fields = vec![
            (b":method".to_vec(), b"GET".to_vec()),
            (b":scheme".to_vec(), b"https".to_vec()),
            (b":authority".to_vec(), b"api.test".to_vec()),
            (b":path".to_vec(), b"/probe".to_vec()),
        ];
        let end = match row.expect {
            EndConnection => {
                connection.send(frames::headers(101, END_STREAM, &probe));
                connection.end_of(101)
            }
            Refuse | Pass(_) | Broken => connection.end_of(1),
        };
        let began = self.upstream.seen().split_off(before.0);
        let complete = self.complete.lock().unwrap().clone().split_off(before.1);
        if let End::Status(status @ 500..=599) = end
            && status != 501
        {
            return Err(format!("{status} caused by a client"));
        }
        let passed = |target: &str| match complete.as_slice() {
            [one] if one.target() == target && end == End::Status(200) => check(one),
            other => Err(format!("{end:?}, and {other:?} instead of {target}")),
        };
        let refused = |nothing_began: bool| {
            let ended = !matches!(end, End::Status(200..=299));
            (ended && complete.is_empty() && nothing_began)
                .then_some(())
                .ok_or_else(|| format!("{end:?}; reached: {began:?}"))
        };
        match row.expect {
            Refuse => refused(began.is_empty()),
            Broken => refused(true),
            Pass(target) => passed(target),
            EndConnection => {
                let ended = matches!(end, End::GoAway(_) | End::Closed);
                ended.then_some(()).ok_or_else(|| format!("{end:?}"))?;
                complete.is_empty().then_some(()).ok_or_else(|| format!("reached: {complete:?}"))
            }
        }?;
        Ok(match complete.as_slice() {
            [] => format!("{end:?}"),
            [one, ..] => format!("{end:?}, {}", one.target()),
        })
    }

    fn run(&mut self, table: &Table, at_least: usize, data: &'static str) {
        let mut pinned = Pinned::new(data);
        assert!(table.rows.len() >= at_least, "{} rows", table.rows.len());
        let mut wrong = String::new();
        for row in &table.rows {
            match self.judge(row) {
                Ok(outcome) => pinned.row(&row.name, &outcome),
                Err(problem) => {
                    writeln!(wrong, "{}: {}", row.name, problem.chars().take(500).collect::<String>())
                        .unwrap();
                }
            }
        }
        assert!(wrong.is_empty(), "of {} rows:\n{wrong}", table.rows.len());
        pinned.check();
        assert!(self.gate.is_alive());
        assert_eq!(self.gate.get("/alive").token(&self.issuer.good()).send().status(), 200);
        assert!(!self.gate.log().text().contains("panicked"), "{}", self.gate.log().text());
    }
}

fn check(seen: &Seen) -> Result<(), String> {
    let text = seen.text();
    let fields = seen.fields();
    let subjects: Vec<&str> = fields
        .iter()
        .filter(|(n, _)| n.replace('_', "-") == "x-auth-subject")
        .map(|(_, v)| v.as_str())
        .collect();
    let framing = fields.iter().filter(|(n, _)| n == "content-length" || n == "transfer-encoding").count();
    let hosts = fields.iter().filter(|(n, _)| n == "host").count();
    // `TE: trailers` goes with `Connection: TE` (RFC 9110 §10.1.4).
    let hop = ["connection", "keep-alive", "upgrade", "proxy-connection"]
        .iter()
        .filter(|name| fields.iter().any(|(n, v)| n == *name && !v.eq_ignore_ascii_case("te")))
        .count();
    let whole = subjects == ["alice"] && framing <= 1 && hosts == 1 && hop == 0;
    whole.then_some(()).ok_or_else(|| format!("reached as {text}"))
}

#[test]
fn malformed_requests_never_reach_an_http_1_1_upstream() {
    let mut scene = scene();
    let mut table = scene.table();
    let good = table.good();
    table.request("a good one", &good, Pass("/h2"));

    for name in [":method", ":scheme", ":path"] {
        table.without(name, Refuse);
    }
    table.without(":authority", Refuse);
    for name in [":method", ":scheme", ":path", ":authority"] {
        let (_, value) = good.iter().find(|(n, _)| n == name.as_bytes()).unwrap().clone();
        let mut fields = good.clone();
        fields.insert(1, (name.as_bytes().to_vec(), value));
        table.request(&format!("{name} twice"), &fields, Refuse);
        let mut fields: Fields = good.iter().filter(|(n, _)| n != name.as_bytes()).cloned().collect();
        let moved = good.iter().find(|(n, _)| n == name.as_bytes()).unwrap().clone();
        fields.push(moved);
        table.request(&format!("{name} after other fields"), &fields, Refuse);
    }
    for name in [":status", ":foo", ":", ":Path", ":protocol", ":method "] {
        let mut fields = good.clone();
        fields.insert(0, (name.as_bytes().to_vec(), b"200".to_vec()));
        table.request(&format!("the pseudo-field {name:?}"), &fields, Refuse);
    }
    for path in [
        "",
        "*",
        "h2",
        "?x",
        "/a b",
        "/a\r\nX: y",
        "/ HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /smuggled",
        "/a\nb",
        "/a\0b",
        "/a\tb",
        "/a\u{7f}",
        "/../a",
        "/%2e%2e/a",
        "//a",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/a%00",
        "/%zz",
        "http://api.test/a",
        "/a/./b",
        "/..;/a",
        "/%0d%0aX:y",
    ] {
        table.with(":path", path, Refuse);
    }
    table.with(":path", "/a?x=%2f..//&y#", Pass("/a?x=%2f..//&y"));
    table.with(":path", "/a#b", Pass("/a"));
    table.with(":path", "#", Pass("/"));
    table.with(":path", "/a%20b?c", Pass("/a%20b?c"));
    table.with(":path", b"/a\xff", Refuse);
    for method in [
        "",
        "G T",
        "GET\r\nX: y",
        "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\nGET",
        "G\0T",
        "GÉT",
        "GET\t",
        "(",
        "CONNECT",
    ] {
        table.with(":method", method, Refuse);
    }
    table.with(":method", "patchwork", Pass("/h2"));
    for authority in [
        "",
        "a b",
        "user@api.test",
        "user:pass@api.test",
        "api.test/x",
        "api.test\r\nX: y",
        "api.test\0",
        "a,b",
        "api.test:x",
        "[::1",
        "api.test?x",
        "api.test#x",
        "api.test\\x",
        "api.test, other.test",
        "é\u{0}",
    ] {
        table.with(":authority", authority, Refuse);
    }
    table.with(":authority", "API.test:8443", Pass("/h2"));
    for scheme in ["", "ht tp", "https\r\n", "https://", "javascript"] {
        table.with(":scheme", scheme, Refuse);
    }

    for name in [
        "Upper",
        "X-ONE",
        "a b",
        "a:b",
        "a\0b",
        "a\r\nb",
        "a\nb",
        "a\tb",
        "",
        "é",
        "a(b",
        "a\"b",
        "a,b",
        "a/b",
        "a\u{7f}b",
        "host\r\nx",
    ] {
        table.and(name, "1", Refuse);
    }
    for value in [
        "a\r\nb",
        "a\rb",
        "a\nb",
        "a\0b",
        "a\r\nX-Auth-Subject: root",
        "a\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        "\n",
        "\0",
    ] {
        table.and("x-one", value, Refuse);
    }
    for value in [" a", "a ", "\ta", "a\t"] {
        table.and("x-one", value, Pass("/h2"));
    }
    table.and("x-one", "a\u{1}b", Refuse);
    table.and("x-one", b"a\xffb", Pass("/h2"));
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "x-auth-subject"),
        ("connection", ""),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
    ] {
        table.and(name, value, Refuse);
    }
    table.and("te", "trailers", Pass("/h2"));
    table.and("host", "other.test", Refuse);
    table.and("host", "api.test", Pass("/h2"));
    table.and("host", "api.test\r\nX: y", Refuse);
    let mut fields: Fields = good.iter().filter(|(n, _)| n != b":authority").cloned().collect();
    fields.push((b"host".to_vec(), b"api.test".to_vec()));
    table.request("host for :authority", &fields, Pass("/h2"));
    fields.push((b"host".to_vec(), b"api.test".to_vec()));
    table.request("two hosts", &fields, Refuse);
    for name in ["x-auth-subject", "x_auth_subject", "x-auth_subject", "x_auth-subject"] {
        table.and(name, "root", Pass("/h2"));
    }
    table.and("authorization", "Bearer x", Refuse);
    table.and("transfer_encoding", "chunked", Pass("/h2"));
    scene.run(&table, 134, "hostile/h2_requests");
    for seen in scene.complete.lock().unwrap().iter() {
        assert!(!seen.text().contains("root") && !seen.text().contains("smuggled"), "{}", seen.text());
    }
}

#[test]
fn a_body_that_contradicts_its_length_never_looks_complete() {
    let mut scene = scene();
    let mut table = scene.table();
    let post = |length: &[&str]| {
        let mut fields = table.good();
        fields[0].1 = b"POST".to_vec();
        fields.extend(length.iter().map(|n| (b"content-length".to_vec(), n.as_bytes().to_vec())));
        fields
    };
    let data = |text: &str| frames::frame(kind::DATA, END_STREAM, 1, text.as_bytes());
    let rows: Vec<(&str, Fields, Option<&str>)> = vec![
        ("longer than announced", post(&["3"]), Some("hello")),
        ("shorter than announced", post(&["30"]), Some("hello")),
        ("announced but absent", post(&["5"]), None),
        ("announced twice", post(&["5", "5"]), Some("hello")),
        ("announced twice, differently", post(&["5", "6"]), Some("hello")),
        ("negative", post(&["-5"]), Some("hello")),
        ("signed", post(&["+5"]), Some("hello")),
        ("a word", post(&["five"]), Some("hello")),
        ("a list", post(&["5, 5"]), Some("hello")),
        ("empty", post(&[""]), Some("hello")),
        ("beyond 64 bits", post(&["99999999999999999999999"]), Some("hello")),
        ("hexadecimal", post(&["0x5"]), Some("hello")),
    ];
    for (name, fields, body) in rows {
        let bytes = match body {
            Some(body) => [frames::headers(1, 0, &fields), data(body)].concat(),
            None => frames::headers(1, END_STREAM, &fields),
        };
        table.row(name, bytes, Broken);
    }
    let fields =
        table.good().into_iter().chain([(b"content-length".to_vec(), b"5".to_vec())]).collect::<Fields>();
    table.row("exact", [frames::headers(1, 0, &fields), data("hello")].concat(), Pass("/h2"));
    let plain = table.good();
    table.row("without a length", [frames::headers(1, 0, &plain), data("hello")].concat(), Pass("/h2"));
    scene.run(&table, 14, "hostile/h2_lengths");
    let bodies: Vec<Vec<u8>> = scene.complete.lock().unwrap().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies[..2], [b"hello".to_vec(), b"hello".to_vec()]);
}

#[test]
fn trailers_cannot_bring_what_the_head_may_not() {
    let (scene, mut pinned) = (scene(), Pinned::new("hostile/h2_trailers"));
    for (name, value) in [
        (":path", "/evil"),
        (":status", "200"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("X-Upper", "1"),
        ("x-one", "a\r\nb"),
        ("content-length", "50"),
        ("host", "evil.test"),
        ("x-auth-subject", "root"),
        ("x_auth_subject", "root"),
        ("authorization", "Bearer x"),
    ] {
        let table = scene.table();
        let mut fields = table.good();
        fields[0].1 = b"POST".to_vec();
        let bytes = [
            frames::headers(1, 0, &fields),
            frames::frame(kind::DATA, 0, 1, b"hello"),
            frames::headers(1, END_STREAM, &[(name, value)]),
        ]
        .concat();
        let mut connection = Frames::connect(&scene.gate);
        connection.send(bytes);
        let end = connection.end_of(1);
        assert!(!matches!(end, End::Status(500..=599)), "{name}: {end:?}");
        pinned.row(&format!("{name:?}: {value:?}"), &format!("{end:?}"));
    }
    pinned.check();
    for seen in scene.complete.lock().unwrap().iter() {
        let trailers = seen.trailers.to_ascii_lowercase().replace('_', "-");
        for name in [
            "x-auth-subject",
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "connection",
            "x-one",
            "path",
        ] {
            assert!(!trailers.contains(&format!("{name}:")), "{trailers}");
        }
    }
}

#[test]
fn frames_that_break_the_protocol_end_the_connection() {
    let mut scene = scene();
    let mut table = scene.table();
    let good = table.good();
    let block = frames::block(&good);
    let (first, second) = block.split_at(block.len() / 2);
    let open = frames::headers(1, 0, &good);
    let frame = frames::frame;
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("DATA on stream 0", frame(kind::DATA, 0, 0, b"x")),
        ("DATA on an idle stream", frame(kind::DATA, 0, 5, b"x")),
        ("HEADERS on stream 0", frame(kind::HEADERS, END_HEADERS | END_STREAM, 0, &block)),
        ("HEADERS on an even stream", frame(kind::HEADERS, END_HEADERS | END_STREAM, 2, &block)),
        (
            "a stream id that goes back",
            [frames::headers(9, 0, &good), frames::headers(3, END_STREAM, &good)].concat(),
        ),
        ("CONTINUATION without HEADERS", frame(kind::CONTINUATION, END_HEADERS, 1, &block)),
        (
            "CONTINUATION on another stream",
            [frame(kind::HEADERS, END_STREAM, 1, first), frame(kind::CONTINUATION, END_HEADERS, 3, second)]
                .concat(),
        ),
        (
            "another frame within a field block",
            [
                frame(kind::HEADERS, END_STREAM, 1, first),
                frame(kind::PING, 0, 0, &[0; 8]),
                frame(kind::CONTINUATION, END_HEADERS, 1, second),
            ]
            .concat(),
        ),
        (
            "a PUSH_PROMISE from a client",
            frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &block[..]].concat()),
        ),
        ("RST_STREAM on stream 0", frame(kind::RST_STREAM, 0, 0, &[0, 0, 0, 8])),
        ("RST_STREAM on an idle stream", frame(kind::RST_STREAM, 0, 7, &[0, 0, 0, 8])),
        ("RST_STREAM of three bytes", [open.clone(), frame(kind::RST_STREAM, 0, 1, &[0, 0, 8])].concat()),
        ("SETTINGS on a stream", frame(kind::SETTINGS, 0, 1, &[])),
        ("SETTINGS of five bytes", frame(kind::SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS ack with a payload", frame(kind::SETTINGS, 1, 0, &[0, 3, 0, 0, 0, 1])),
        ("SETTINGS with a window too large", frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
        ("SETTINGS with frames too small", frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        ("SETTINGS with ENABLE_PUSH 2", frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])),
        ("PING on a stream", frame(kind::PING, 0, 1, &[0; 8])),
        ("PING of seven bytes", frame(kind::PING, 0, 0, &[0; 7])),
        ("GOAWAY on a stream", frame(kind::GOAWAY, 0, 1, &[0; 8])),
        ("WINDOW_UPDATE of zero on the connection", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("WINDOW_UPDATE of three bytes", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("WINDOW_UPDATE on an idle stream", frame(kind::WINDOW_UPDATE, 0, 7, &[0, 0, 0, 1])),
        (
            "a window beyond its maximum",
            [
                frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
                frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            ]
            .concat(),
        ),
        ("a frame above the maximum size", frame(kind::DATA, 0, 1, &[0; 20_000])),
        ("padding longer than its frame", [open.clone(), frame(kind::DATA, 8, 1, &[9, 1])].concat()),
        ("padding longer than its HEADERS", frame(kind::HEADERS, END_HEADERS | END_STREAM | 8, 1, &[200, 1])),
        ("HPACK: index 0", frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0x80])),
        (
            "HPACK: an index out of range",
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0x01]),
        ),
        ("HPACK: an endless number", frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 20])),
        (
            "HPACK: a string longer than its block",
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0x10, 0x7e, b'a']),
        ),
        (
            "HPACK: a table above its maximum",
            frame(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[&[0x3f, 0xe1, 0xff, 0xff, 0x07], &block[..]].concat(),
            ),
        ),
        (
            "HPACK: broken Huffman",
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0x10, 0x81, 0xff, 0x81, 0xff]),
        ),
        ("HPACK: cut off", frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block[..block.len() - 3])),
    ];
    for (name, bytes) in rows {
        table.row(name, bytes, EndConnection);
    }
    scene.run(&table, 35, "hostile/h2_frames");
}

#[test]
fn frames_of_a_dead_stream_do_no_harm() {
    let (scene, mut pinned) = (scene(), Pinned::new("hostile/h2_late_frames"));
    let good = scene.table().good();
    for (name, late) in [
        ("DATA after the end", frames::frame(kind::DATA, 0, 1, b"late")),
        ("HEADERS after the end", frames::headers(1, END_STREAM, &good)),
        ("WINDOW_UPDATE after the end", frames::frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("RST_STREAM after the end", frames::frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("PRIORITY on itself", frames::frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0])),
        ("an unknown frame", frames::frame(0xbe, 0xff, 1, b"grease")),
    ] {
        let before = scene.upstream.count();
        let mut connection = Frames::connect(&scene.gate);
        connection.send(frames::headers(1, END_STREAM, &good));
        assert_eq!(connection.end_of(1), End::Status(200), "{name}");
        connection.send(late);
        connection.send(frames::headers(
            3,
            END_STREAM,
            &[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "api.test")],
        ));
        let end = connection.end_of(3);
        pinned.row(name, &format!("{end:?}"));
        assert_eq!(scene.upstream.count(), before + 1, "{name}");
    }
    pinned.check();
}

#[test]
fn a_wrong_preface_is_a_protocol_error() {
    let scene = scene();
    for preface in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "garbage garbage garbage garbage",
        "",
    ] {
        let mut connection = Frames::silent(&scene.gate);
        connection.send(preface.as_bytes());
        connection.send([0; 64]);
        assert_eq!(connection.end_of(1), End::GoAway(1), "{preface:?}");
    }
    assert_eq!(scene.upstream.count(), 0);
}

/// Floods of cheap frames: the gate ends the connection or keeps up; in either case other clients are served.
#[test]
fn floods_do_not_disturb_others() {
    let mut scene = scene();
    let good = scene.table().good();
    let ping = frames::frame(kind::PING, 0, 0, &[0; 8]);
    let settings = frames::frame(kind::SETTINGS, 0, 0, &[]);
    let empty = frames::frame(kind::DATA, 0, 1, &[]);
    let rapid_reset = |count: u32| -> Vec<u8> {
        (0..count)
            .flat_map(|n| {
                [
                    frames::headers(2 * n + 1, END_STREAM, &good),
                    frames::frame(kind::RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]),
                ]
            })
            .flatten()
            .collect()
    };
    let continuation: Vec<u8> = [frames::frame(kind::HEADERS, END_STREAM, 1, &[])]
        .into_iter()
        .chain(
            (0..2_000)
                .map(|_| frames::frame(kind::CONTINUATION, 0, 1, &frames::block(&[("x", "y".repeat(200))]))),
        )
        .flatten()
        .collect();
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("PING", ping.repeat(20_000)),
        ("SETTINGS", settings.repeat(20_000)),
        ("empty DATA", [frames::headers(1, 0, &good), empty.repeat(20_000)].concat()),
        ("rapid reset", rapid_reset(3_000)),
        ("CONTINUATION", continuation),
        (
            "empty CONTINUATION",
            [
                frames::frame(kind::HEADERS, END_STREAM, 1, &[]),
                frames::frame(kind::CONTINUATION, 0, 1, &[]).repeat(20_000),
            ]
            .concat(),
        ),
        ("WINDOW_UPDATE", frames::frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(20_000)),
        ("PRIORITY", frames::frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 0, 1]).repeat(20_000)),
        ("an HPACK bomb", hpack_bomb()),
    ];
    let token = scene.issuer.good();
    assert_eq!(scene.gate.get("/").token(&token).send().status(), 200);
    let before = scene.gate.memory("VmHWM");
    for (name, bytes) in floods {
        let mut connection = Frames::connect(&scene.gate);
        connection.set_patience(Duration::from_millis(200));
        for part in bytes.chunks(64 * 1024) {
            connection.send(part);
        }
        while connection.read().is_ok() {}
        assert_eq!(scene.gate.get("/other").token(&token).send().status(), 200, "after {name}");
        assert!(scene.gate.is_alive(), "after {name}");
    }
    let grown = scene.gate.memory("VmHWM") - before;
    assert!(grown < 64 * 1024, "{grown} KiB more");
    assert!(!scene.gate.log().text().contains("panicked"));
}

/// One field of 4,000 bytes is put into the dynamic table, then referenced thousands of times.
fn hpack_bomb() -> Vec<u8> {
    let mut block = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    block.extend_from_slice(&vec![b'y'; 4000]);
    block.extend(std::iter::repeat_n(0xbe, 12_000));
    frames::frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

#[test]
fn crumbs_of_a_cookie_are_joined() {
    let scene = scene();
    let mut fields = scene.table().good();
    for crumb in ["a=1", "b=2", "c=3"] {
        fields.push((b"cookie".to_vec(), crumb.as_bytes().to_vec()));
    }
    let mut connection = Frames::connect(&scene.gate);
    connection.send(frames::headers(1, END_STREAM, &fields));
    assert_eq!(connection.end_of(1), End::Status(200));
    assert_eq!(scene.upstream.last().all("cookie"), ["a=1; b=2; c=3"]);
}
