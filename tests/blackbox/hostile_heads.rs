//! HTTP/1.1 as attackers write it: smuggling, chunk syntax, Host, targets, hop-by-hop fields, spoofed identities, sizes.
//!
//! Every row is raw bytes sent to a real gate. The oracle is an upstream that records what reaches it: nothing,
//! or exactly the one request that all parsers read in the same way.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::pinned::Pinned;
use testkit::gate::Gate;
use testkit::raw_upstream::{Next, RawUpstream, Seen};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::{Answer, Wire};
use testkit::within;

/// The expected outcome of a row's bytes. The exact status is in the data.
enum Expect {
    /// One response that rejects them; nothing reaches the upstream.
    Refuse,
    /// Like [`Expect::Refuse`], for bytes after which the gate may wait for more, so the sending half is
    /// closed: a response, or the end of the connection.
    RefuseAtEnd,
    /// Exactly this request reaches the upstream: its target and body.
    Pass(String, Vec<u8>),
    /// No complete request reaches the upstream, and the client receives a rejection or a closed connection.
    Broken,
}

use Expect::{Broken, Pass, Refuse, RefuseAtEnd};

struct Row {
    name: String,
    bytes: Vec<u8>,
    expect: Expect,
}

/// A builder for the table. `{auth}` stands for a field line with a valid token, `{host}` for one with a valid host.
#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn raw(&mut self, name: &str, bytes: impl AsRef<[u8]>, expect: Expect) {
        self.0.push(Row { name: name.to_owned(), bytes: bytes.as_ref().to_vec(), expect });
    }

    /// Adds a request line with valid fields.
    fn line(&mut self, line: &str) {
        self.raw(&format!("line {line:?}"), format!("{line}\r\n{{host}}{{auth}}\r\n"), Refuse);
    }

    /// Adds a target with valid fields.
    fn target(&mut self, target: &str, expect: Expect) {
        self.raw(
            &format!("target {target:?}"),
            format!("GET {target} HTTP/1.1\r\n{{host}}{{auth}}\r\n"),
            expect,
        );
    }

    /// Adds field lines to the valid ones of a request without a body.
    fn fields(&mut self, name: &str, fields: impl AsRef<[u8]>, expect: Expect) {
        let bytes = [b"GET /fields HTTP/1.1\r\n{host}{auth}", fields.as_ref(), b"\r\n"].concat();
        self.raw(name, bytes, expect);
    }

    /// Adds field lines to the valid ones of a request, followed by a body.
    fn post(&mut self, fields: &str, body: &str, expect: Expect) {
        let bytes = format!("POST /post HTTP/1.1\r\n{{host}}{{auth}}{fields}\r\n{body}");
        self.raw(
            &format!("fields {fields:?} and body {:?}", body.chars().take(40).collect::<String>()),
            bytes,
            expect,
        );
    }

    /// Adds a chunked body.
    fn chunks(&mut self, body: impl AsRef<[u8]>, expect: Expect) {
        let body = body.as_ref();
        let shown: String = String::from_utf8_lossy(body).chars().take(40).collect();
        let head = b"POST /chunks HTTP/1.1\r\n{host}{auth}Transfer-Encoding: chunked\r\n\r\n";
        self.raw(&format!("chunks {shown:?}"), [head, body].concat(), expect);
    }
}

fn passes(target: &str, body: &str) -> Expect {
    Pass(target.to_owned(), body.as_bytes().to_vec())
}

/// A request that must never reach the upstream, hidden behind another.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n";

/// One gate and its upstream, and what they received.
struct Scene {
    gate: Gate,
    upstream: RawUpstream,
    /// The requests whose body ended properly.
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
        let bodiless = exchange.request.method() == "HEAD";
        exchange
            .send(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", if bodiless { "" } else { "ok" }))
    });
    let issuer = Issuer::new();
    let settings = Settings::plaintext().limits("header_timeout = \"2s\"").guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    Scene { gate, upstream, complete, issuer }
}

impl Scene {
    fn bytes(&self, template: &[u8]) -> Vec<u8> {
        let auth = format!("Authorization: Bearer {}\r\n", self.issuer.good());
        let bytes = replace(template, b"{auth}", auth.as_bytes());
        replace(&bytes, b"{host}", b"Host: api.test\r\n")
    }

    /// Sends a row and returns its outcome, or what is wrong with it.
    fn judge(&self, row: &Row) -> Result<String, String> {
        let before = (self.upstream.count(), self.complete.lock().unwrap().len());
        // If the gate may wait for more, close the sending half. Otherwise keep it open: the end of input
        // before a response could mean that the client has gone.
        let ends = matches!(&row.expect, Broken | RefuseAtEnd);
        let (answer, rest) = exchange(&mut self.gate.connect(), &self.bytes(&row.bytes), ends)?;
        let status = answer.as_ref().map_or(0, Answer::status);
        if (500..600).contains(&status) && !matches!(status, 501 | 505) {
            return Err(format!("{status} caused by a client"));
        }
        let began: Vec<Seen> = self.upstream.seen().split_off(before.0);
        let complete: Vec<Seen> = self.complete.lock().unwrap().clone().split_off(before.1);
        if let Some(seen) = began.iter().find(|seen| seen.text().contains("smuggled")) {
            return Err(format!("smuggled: {}", seen.text()));
        }
        let passed = |target: &str, body: &[u8]| match complete.as_slice() {
            [one] if one.target() == target && one.body == body && status == 200 => check_fields(one),
            other => Err(format!("{status}, and {other:?} instead of {target} with {body:?}")),
        };
        let refused = || {
            let is_refusal =
                (400..=499).contains(&status) || matches!(status, 501 | 505) || (ends && status == 0);
            let nothing = began.is_empty() && is_refusal && rest.is_empty();
            nothing.then_some(()).ok_or_else(|| format!("{status}; then {rest:?}; reached: {began:?}"))
        };
        let broken = || {
            let nothing = complete.is_empty() && matches!(status, 0 | 400 | 413 | 431);
            nothing.then_some(()).ok_or_else(|| format!("{status}; then {rest:?}; complete: {complete:?}"))
        };
        match &row.expect {
            Refuse | RefuseAtEnd => refused(),
            Pass(target, body) => passed(target, body),
            Broken => broken(),
        }?;
        let answered = if answer.is_some() { status.to_string() } else { "closed".to_owned() };
        // Whether the upstream sees the start of a request that breaks off is a race.
        Ok(match complete.as_slice() {
            [] => answered,
            [one, ..] => format!("{answered}, {} + {} bytes", one.target(), one.body.len()),
        })
    }
}

/// Sends bytes, reads the first response, then what follows once the sending half is closed.
fn exchange(wire: &mut Wire, bytes: &[u8], ends: bool) -> Result<(Option<Answer>, String), String> {
    drop(wire.send(bytes));
    if ends {
        wire.finish_sending();
    }
    let answer = match wire.answer_to(bytes.starts_with(b"HEAD ")) {
        Ok(answer) => Some(answer),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
        Err(error) => return Err(format!("no answer: {error}")),
    };
    wire.finish_sending();
    let rest = wire.rest().map_err(|error| format!("not closed after the end of input: {error}"))?;
    // A later request on the connection was refused: that is an answer like any other.
    let text = String::from_utf8_lossy(&rest).into_owned();
    let refused_later = text.starts_with("HTTP/1.1 401") || text.starts_with("HTTP/1.1 400");
    Ok((answer, if refused_later { String::new() } else { text }))
}

/// Checks the fields of a request that reached the upstream.
fn check_fields(seen: &Seen) -> Result<(), String> {
    let fields = seen.fields();
    let count = |name: &str| fields.iter().filter(|(n, _)| n.replace('_', "-") == name).count();
    let subject =
        fields.iter().filter(|(n, _)| n.replace('_', "-") == "x-auth-subject").map(|(_, v)| v.as_str());
    let subject: Vec<&str> = subject.collect();
    let text = seen.text();
    if subject != ["alice"] {
        return Err(format!("subject {subject:?} in {text}"));
    }
    if count("host") != 1 || count("content-length") + count("transfer-encoding") > 1 {
        return Err(format!("framing or host in {text}"));
    }
    if let Some(name) =
        ["keep-alive", "proxy-connection", "upgrade", "trailer-x", "te-x"].iter().find(|n| count(n) > 0)
    {
        return Err(format!("{name} in {text}"));
    }
    if seen.head.contains(&0) || text.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(format!("a control byte in {text:?}"));
    }
    Ok(())
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|window| window == from) {
        Some(at) => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// Judges all rows, of which there must be at least this many, so that a lost row is noticed.
fn run(scene: &mut Scene, table: &Table, at_least: usize, data: &'static str) {
    let mut pinned = Pinned::new(data);
    assert!(table.0.len() >= at_least, "{} rows", table.0.len());
    let mut wrong = String::new();
    for row in &table.0 {
        match scene.judge(row) {
            Ok(outcome) => pinned.row(&row.name, &outcome),
            Err(problem) => {
                writeln!(wrong, "{}: {}", row.name, problem.chars().take(600).collect::<String>()).unwrap();
            }
        }
    }
    let rows = table.0.len();
    assert!(wrong.is_empty(), "of {rows} rows:\n{wrong}");
    pinned.check();
    assert!(scene.gate.is_alive());
    assert!(scene.upstream.stray().is_empty(), "{:?}", scene.upstream.stray());
    assert_eq!(scene.gate.get("/alive").token(&scene.issuer.good()).send().status(), 200);
    let failures: f64 = scene
        .gate
        .metrics()
        .family("portcullis_requests_total")
        .filter(|(labels, _)| {
            labels["status"].starts_with('5') && !matches!(labels["status"].as_str(), "501" | "505")
        })
        .map(|(_, value)| value)
        .sum();
    assert!(failures < 0.5, "5xx counted");
    assert!(!scene.gate.log().text().contains("panicked"), "{}", scene.gate.log().text());
}

/// Holds docs/reasons.md, Other answers: 501, 505
#[test]
fn hostile_request_lines_are_refused() {
    let mut table = Table::default();
    for (_, line) in Pinned::inputs("hostile/request_lines", "line ") {
        table.line(&line);
    }
    table.raw("a bare LF after the line", "GET / HTTP/1.1\n{host}{auth}\r\n", Refuse);
    table.raw("only bare LFs", "GET / HTTP/1.1\nHost: api.test\n\n", Refuse);
    table.raw("a bare CR after the line", "GET / HTTP/1.1\r{host}{auth}\r\n", Refuse);
    table.raw("CR CR LF after the line", "GET / HTTP/1.1\r\r\n{host}{auth}\r\n", Refuse);
    table.raw("an empty line before", "\r\nGET /late HTTP/1.1\r\n{host}{auth}\r\n", passes("/late", ""));
    table.raw("a bare LF before", "\nGET /late HTTP/1.1\r\n{host}{auth}\r\n", Refuse);
    table.raw(
        "10,000 empty lines before",
        "\r\n".repeat(10_000) + "GET / HTTP/1.1\r\n{host}{auth}\r\n",
        RefuseAtEnd,
    );
    table.raw("HTTP/0.9", "GET /\r\n", RefuseAtEnd);
    table.raw("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", RefuseAtEnd);
    table.raw("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", RefuseAtEnd);
    table.raw("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n", RefuseAtEnd);
    table.raw(
        "PROXY version 2",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\0\0\0",
        RefuseAtEnd,
    );
    table.raw("noise", (0..=255u8).cycle().take(3000).collect::<Vec<_>>(), RefuseAtEnd);
    table.raw("null bytes", [0; 100], RefuseAtEnd);
    table.raw("half a request", "GET / HTTP/1.1\r\nHost: api.te", RefuseAtEnd);
    table.raw("nothing", "", RefuseAtEnd);
    for (method, expect) in [
        ("get", passes("/method", "")),
        ("PATCHWORK", passes("/method", "")),
        ("M-SEARCH", passes("/method", "")),
        // Its answer would show the credentials.
        ("TRACE", Refuse),
    ] {
        table.raw(
            &format!("the method {method}"),
            format!("{method} /method HTTP/1.1\r\n{{host}}{{auth}}\r\n"),
            expect,
        );
    }
    table.raw("CONNECT", "CONNECT api.test:443 HTTP/1.1\r\n{host}{auth}\r\n", Refuse);
    table.raw("CONNECT with a path", "CONNECT /x HTTP/1.1\r\n{host}{auth}\r\n", Refuse);
    run(&mut scene(), &table, 66, "hostile/request_lines");
}

#[test]
fn hostile_targets_are_refused_and_others_pass_byte_for_byte() {
    let mut table = Table::default();
    for (outcome, target) in Pinned::inputs("hostile/targets", "target ") {
        let passed = outcome.strip_prefix("200, ").and_then(|rest| rest.strip_suffix(" + 0 bytes"));
        // Only what was absolute reaches the upstream in another form.
        assert!(passed.is_none_or(|passed| passed == target || target.to_lowercase().starts_with("http://")));
        table.target(&target, passed.map_or(Refuse, |passed| passes(passed, "")));
    }
    table.raw("bytes outside UTF-8", b"GET /a\xff\xfeb HTTP/1.1\r\n{host}{auth}\r\n", Refuse);
    table.target(&format!("/{}", "a".repeat(70_000)), Refuse);
    table.target(&format!("/{}", "a".repeat(30_000)), passes(&format!("/{}", "a".repeat(30_000)), ""));
    run(&mut scene(), &table, 137, "hostile/targets");
}

#[test]
fn hostile_hosts_are_refused() {
    let mut table = Table::default();
    let mut host = |name: &str, lines: &str, expect: Expect| {
        table.raw(name, format!("GET /host HTTP/1.1\r\n{lines}{{auth}}\r\n"), expect);
    };
    host("no host", "", Refuse);
    host("two hosts", "Host: api.test\r\nHost: other.test\r\n", Refuse);
    host("the same host twice", "Host: api.test\r\nHost: api.test\r\n", Refuse);
    host("two hosts in other cases", "host: api.test\r\nHOST: other.test\r\n", Refuse);
    host("three hosts", "Host: a\r\nHost: b\r\nHost: c\r\n", Refuse);
    host("an empty and a good host", "Host:\r\nHost: api.test\r\n", Refuse);
    for (outcome, value) in Pinned::inputs("hostile/hosts", "host ") {
        let expect = if outcome.starts_with("200") { passes("/host", "") } else { Refuse };
        host(&format!("host {value:?}"), &format!("Host: {value}\r\n"), expect);
    }
    host("a space before the colon", "Host : api.test\r\n", Refuse);
    host("a space before the name", " Host: api.test\r\n", Refuse);
    host("folded", "Host:\r\n api.test\r\n", Refuse);
    host("a null byte in the name", "Host\0: api.test\r\n", Refuse);
    table.raw("HTTP/1.0 with two hosts", "GET /host HTTP/1.0\r\nHost: a\r\nHost: b\r\n{auth}\r\n", Refuse);
    table.raw("HTTP/1.0 with a bad host", "GET /host HTTP/1.0\r\nHost: a b\r\n{auth}\r\n", Refuse);
    run(&mut scene(), &table, 61, "hostile/hosts");
}

#[test]
fn a_host_in_the_target_and_another_in_the_field_are_never_mixed() {
    let scene = scene();
    let request = scene.bytes(b"GET http://other.test/absolute HTTP/1.1\r\n{host}{auth}\r\n");
    let answer = scene.gate.connect().exchange(request).unwrap();
    // RFC 9112 §3.2.2: the target wins and replaces the field.
    assert_eq!(answer.status(), 200);
    assert_eq!(scene.upstream.last().field("host").as_deref(), Some("other.test"));
}

/// Holds docs/reasons.md, Other answers: 414
#[test]
fn hostile_fields_are_refused() {
    let mut table = Table::default();
    for c in " \t\"(),/:;<=>?@[\\]{}\u{0}\u{1}\u{7f}é".chars() {
        let expect = if c == ':' { passes("/fields", "") } else { Refuse };
        table.fields(&format!("a name with {c:?}"), format!("X{c}Y: 1\r\n"), expect);
    }
    table.fields("a space before the colon", "X-One : 1\r\n", Refuse);
    table.fields("a tab before the colon", "X-One\t: 1\r\n", Refuse);
    table.fields("no colon", "X-One\r\n", Refuse);
    table.fields("no name", ": 1\r\n", Refuse);
    table.fields("only a colon", ":\r\n", Refuse);
    table.fields("folded with a space", "X-One: 1\r\n 2\r\n", Refuse);
    table.fields("folded with a tab", "X-One: 1\r\n\t2\r\n", Refuse);
    table.fields("folded with nothing", "X-One: 1\r\n \r\n", Refuse);
    table.fields("a null byte in a value", b"X-One: a\0b\r\n", Refuse);
    table.fields("a bare CR in a value", "X-One: a\rb\r\n", Refuse);
    table.fields("a bare CR and a field", "X-One: a\rX-Auth-Subject: root\r\n", Refuse);
    table.fields("a bare LF in a value", "X-One: a\nX-Two: b\r\n", Refuse);
    table.fields("a bare LF after a value", "X-One: a\n", Refuse);
    table.fields("CR CR LF after a value", "X-One: a\r\r\n", Refuse);
    table.fields("a control byte in a value", b"X-One: a\x01b\r\n", Refuse);
    table.fields("DEL in a value", b"X-One: a\x7fb\r\n", Refuse);
    table.fields("bytes above ASCII in a value", b"X-One: \xc3\xa9\xff\r\n", passes("/fields", ""));
    table.fields("an empty value", "X-One:\r\n", passes("/fields", ""));
    table.fields("space around a value", "X-One: \t a \t \r\n", passes("/fields", ""));
    table.fields("100 values of one name", "X-One: a\r\n".repeat(90), passes("/fields", ""));
    table.raw("a space before the first field", "GET / HTTP/1.1\r\n X-One: 1\r\n{host}{auth}\r\n", Refuse);
    table.raw("a bare LF ends the head", "GET / HTTP/1.1\r\n{host}{auth}\n", RefuseAtEnd);
    table.raw("a bare CR ends the head", "GET / HTTP/1.1\r\n{host}{auth}\r\r\n", Refuse);

    table.fields(
        "one field too many",
        (0..99).fold(String::new(), |all, n| all + &format!("X-{n}: 1\r\n")),
        Refuse,
    );
    table.fields(
        "10,000 fields",
        (0..10_000).fold(String::new(), |all, n| all + &format!("X-{n}: 1\r\n")),
        Refuse,
    );
    table.fields("a value of 65 KiB", format!("X-One: {}\r\n", "x".repeat(65 * 1024)), Refuse);
    table.fields("a value of 5 MiB", format!("X-One: {}\r\n", "x".repeat(5 * 1024 * 1024)), RefuseAtEnd);
    table.fields("a name of 65 KiB", format!("{}: 1\r\n", "x".repeat(65 * 1024)), Refuse);
    table.fields("70 KiB in many fields", format!("X-One: {}\r\n", "x".repeat(1000)).repeat(70), Refuse);
    table.fields("a line without end", "x".repeat(100_000), Refuse);
    table.raw(
        "a method of 100 KiB",
        format!("{} / HTTP/1.1\r\n{{host}}{{auth}}\r\n", "M".repeat(100 * 1024)),
        Refuse,
    );
    table.raw(
        "a version of 100 KiB",
        format!("GET / HTTP/1.{}\r\n{{host}}{{auth}}\r\n", "1".repeat(100 * 1024)),
        Refuse,
    );
    run(&mut scene(), &table, 55, "hostile/fields");
}

/// Holds docs/reasons.md, Other answers: 501, 505
#[test]
fn a_body_has_one_length_or_none_is_forwarded() {
    let mut table = Table::default();
    for length in [
        "-1",
        "+5",
        "5 5",
        "5, 6",
        "0x5",
        "5.0",
        "5e0",
        "",
        " ",
        "five",
        "٥",
        "1_0",
        "\"5\"",
        "5;",
        "5,",
        ",5",
        "- 5",
        "5-",
        "18446744073709551616",
        "99999999999999999999999999",
        "5\u{0}",
        "5\u{b}",
        "5\u{1}",
        "0,5",
        "5,0",
        "0 5",
        "NaN",
        "00x5",
        "5\t5",
        "5/5",
        "5:5",
    ] {
        table.post(&format!("Content-Length: {length}\r\n"), &format!("hello{SMUGGLED}"), Refuse);
    }
    for (one, two) in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("5", ""), ("5", "x")] {
        let fields = format!("Content-Length: {one}\r\nContent-Length: {two}\r\n");
        table.post(&fields, &format!("hello{SMUGGLED}"), Refuse);
    }
    table.post("Content-Length: 5\r\nX: y\r\ncontent-length: 50\r\n", &format!("hello{SMUGGLED}"), Refuse);
    table.post("Content-Length : 5\r\n", &format!("hello{SMUGGLED}"), Refuse);
    table.post("Content-Length\r\n: 5\r\n", &format!("hello{SMUGGLED}"), Refuse);
    table.post("Content-Length:\r\n 5\r\n", &format!("hello{SMUGGLED}"), Refuse);
    table.post("Content-Length: 5\rX: y\r\n", &format!("hello{SMUGGLED}"), Refuse);
    table.post("Content-Length: 5, 5\r\n", "hello", Refuse);
    table.post("Content-Length: 0005\r\n", "hello", passes("/post", "hello"));
    table.post("Content-Length: 9223372036854775807\r\n", "hello", Broken);
    table.post("Content-Length: 10\r\n", "hello", Broken);
    table.post("Content-Length: 5\r\n", "hello", passes("/post", "hello"));
    table.post("Content-Length: 5\r\n", &format!("hello{SMUGGLED}"), passes("/post", "hello"));
    table.post("Content-Length: 0\r\n", SMUGGLED, passes("/post", ""));
    table.post("", SMUGGLED, passes("/post", ""));
    table.raw(
        "GET with a body that is a request",
        format!("GET /post HTTP/1.1\r\n{{host}}{{auth}}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        passes("/post", SMUGGLED),
    );
    // Both framings at once, in every order and spelling.
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 15\r\ntransfer-encoding: CHUNKED\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 4\r\n",
    ] {
        table.post(fields, &format!("{chunked}{SMUGGLED}"), Refuse);
    }
    for coding in [
        "gzip",
        "gzip, chunked",
        "deflate, chunked",
        "compress",
        "chunked, gzip",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "br",
        "x",
    ] {
        table.post(&format!("Transfer-Encoding: {coding}\r\n"), chunked, Refuse);
        table.post(
            &format!("Transfer-Encoding: {coding}\r\nContent-Length: 5\r\n"),
            &format!("hello{SMUGGLED}"),
            Refuse,
        );
    }
    for coding in [
        "chunked, chunked",
        "chunked,chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "chunk ed",
        "\"chunked\"",
        "chunked\u{b}",
        "\u{b}chunked",
        "chunked\u{0}",
        "",
        " ",
        "\u{c}chunked",
        "chunked x",
        "chunked;",
        "cHuNkEd, x",
    ] {
        table.post(&format!("Transfer-Encoding: {coding}\r\n"), &format!("{chunked}{SMUGGLED}"), Refuse);
        table.post(
            &format!("Transfer-Encoding: {coding}\r\nContent-Length: 5\r\n"),
            &format!("hello{SMUGGLED}"),
            Refuse,
        );
    }
    for coding in ["chunked", "Chunked", "CHUNKED", " chunked ", "\tchunked"] {
        table.post(&format!("Transfer-Encoding:{coding}\r\n"), chunked, passes("/post", "hello"));
    }
    for coding in ["chunked,", ",chunked", ", , chunked"] {
        table.post(&format!("Transfer-Encoding: {coding}\r\n"), chunked, Refuse);
    }
    for (one, two) in [
        ("chunked", "chunked"),
        ("chunked", "identity"),
        ("identity", "chunked"),
        ("gzip", "chunked"),
        ("chunked", "x"),
        ("", "chunked"),
    ] {
        let fields = format!("Transfer-Encoding: {one}\r\nTransfer-Encoding: {two}\r\n");
        table.post(&fields, &format!("{chunked}{SMUGGLED}"), Refuse);
    }
    for fields in [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\nX: y\r\n",
        "\0Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding\u{0}: chunked\r\n",
        "Transfer-Ëncoding: chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
    ] {
        table.post(&format!("{fields}Content-Length: 5\r\n"), &format!("hello{SMUGGLED}"), Refuse);
    }
    // Some upstreams read an underscore as a hyphen.
    for fields in ["Transfer_Encoding: chunked\r\n", "Content_Length: 100\r\n", "Content-Length_: 7\r\n"] {
        table.post(&format!("{fields}Content-Length: 5\r\n"), "hello", passes("/post", "hello"));
    }
    table.raw(
        "chunked in HTTP/1.0",
        format!(
            "POST /post HTTP/1.0\r\n{{host}}{{auth}}Transfer-Encoding: chunked\r\n\r\n{chunked}{SMUGGLED}"
        ),
        Refuse,
    );
    run(&mut scene(), &table, 137, "hostile/lengths");
}

#[test]
fn chunks_are_read_strictly() {
    let mut table = Table::default();
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n",
        "005\r\nhello\r\n00\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;;\r\nhello\r\n0\r\n\r\n",
    ] {
        table.chunks(body, passes("/chunks", "hello"));
    }
    for body in ["5 \r\nhello\r\n0\r\n\r\n", "5 ;a\r\nhello\r\n0\r\n\r\n", "5\t\r\nhello\r\n0\r\n\r\n"] {
        table.chunks(body, Broken);
    }
    for size in [
        "g",
        "-5",
        "+5",
        "0x5",
        " 5",
        "\t5",
        "",
        "5.0",
        "5,",
        "5 5",
        "5x",
        "٥",
        "5\u{0}",
        "\u{0}5",
        "5\u{b}",
        "\"5\"",
        "5_0",
        "#5",
        "5:",
        "10000000000000005",
        "100000000000000000000000000000005",
        "FFFFFFFFFFFFFFFF",
        "FFFFFFFFFFFFFFFFF",
        "8000000000000000",
    ] {
        table.chunks(format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"), Broken);
    }
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5\r\n\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\u{0}\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
        "5\r\nhello\r\n0\r\n: b\r\n\r\n",
        "hello",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n",
    ] {
        table.chunks(body, Broken);
    }
    let long = "x".repeat(100_000);
    table.chunks(format!("5;{long}\r\nhello\r\n0\r\n\r\n"), Broken);
    table.chunks(format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(100_000)), Broken);
    table.chunks(format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n"), Broken);
    table.chunks(format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(1000)), Broken);
    // A trailer is never merged into the head, and cannot bring what the head may not have.
    for trailer in
        ["X-Auth-Subject: root", "x_auth_subject: root", "Authorization: Bearer x", "Connection: close"]
    {
        table.chunks(format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"), passes("/chunks", "hello"));
    }
    for trailer in ["Content-Length: 50", "Transfer-Encoding: x", "Host: evil.test"] {
        table.chunks(format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"), Broken);
    }
    let mut scene = scene();
    run(&mut scene, &table, 75, "hostile/chunks");
    for seen in scene.complete.lock().unwrap().iter() {
        let trailers = seen.trailers.to_ascii_lowercase().replace('_', "-");
        for name in
            ["x-auth-subject", "content-length", "transfer-encoding", "host", "authorization", "connection"]
        {
            assert!(!trailers.contains(&format!("{name}:")), "{trailers}");
        }
    }
}

#[test]
fn hop_by_hop_fields_cannot_be_abused() {
    let mut table = Table::default();
    for fields in [
        "Connection: close\r\n",
        "Connection: Content-Length\r\n",
        "Connection: Host\r\n",
        "Connection: Authorization\r\n",
        "Connection: X-Auth-Subject\r\n",
        "Connection: x-forwarded-for, via, x-request-id, forwarded\r\n",
        "Connection: close, X-Auth-Subject, Host, Content-Length\r\n",
        "Connection: ,,,\r\n",
        "Connection:\r\n",
        "Connection: keep-alive\r\nConnection: X-One\r\nX-One: 1\r\n",
        "Connection: \"Content-Length\"\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "TE: trailers\r\n",
        "TE: gzip;q=0.5, trailers\r\n",
        "Trailer: Authorization\r\n",
        "Upgrade: h2c\r\n",
        "Connection: Upgrade\r\n",
        "Connection: te, transfer-encoding\r\n",
        "Proxy-Authorization: Basic YTpi\r\n",
        "HTTP2-Settings: AAAA\r\n",
        "Max-Forwards: 0\r\n",
        "Via: 1.1 portcullis\r\n",
    ] {
        let expect = passes("/post", "hello");
        table.raw(
            fields,
            format!("POST /post HTTP/1.1\r\n{{host}}{{auth}}{fields}Content-Length: 5\r\n\r\nhello"),
            expect,
        );
    }
    table.fields(
        "a Connection field of 10,000 names",
        format!("Connection: {}\r\n", "x,".repeat(10_000)),
        Refuse,
    );
    table.fields(
        "bytes outside ASCII in Connection",
        b"Connection: \xff\xfe, x-one\r\nX-One: 1\r\n",
        passes("/fields", ""),
    );
    let mut scene = scene();
    run(&mut scene, &table, 25, "hostile/hop_by_hop");
    for seen in scene.complete.lock().unwrap().iter().filter(|seen| seen.target() != "/alive") {
        assert_eq!(seen.field("host").as_deref(), Some("api.test"), "{}", seen.text());
        assert_eq!(seen.field("x-one"), None, "{}", seen.text());
        for name in ["x-forwarded-for", "via", "x-request-id", "forwarded", "authorization"] {
            assert!(seen.field(name).is_some(), "{name} is missing in {}", seen.text());
        }
    }
}

#[test]
fn identities_cannot_be_spoofed() {
    let mut table = Table::default();
    for name in [
        "X-Auth-Subject",
        "x-auth-subject",
        "X-AUTH-SUBJECT",
        "X_Auth_Subject",
        "x_auth_subject",
        "X-Auth_Subject",
        "X_Auth-Subject",
        "X-Auth-Client",
        "X_AUTH_CLIENT",
        "X-Auth-Scope",
        "X_Auth_Scope",
        "X-Auth-Roles",
        "X_Auth_Roles",
        "x-auth_roles",
        "X-Auth-Tenant",
        "X_Auth_Tenant",
    ] {
        table.fields(name, format!("{name}: root\r\n"), passes("/fields", ""));
        table.fields(
            &format!("{name} twice"),
            format!("{name}: root\r\n{name}: root\r\n"),
            passes("/fields", ""),
        );
    }
    for name in [
        "X-Auth-Subject ",
        " X-Auth-Subject",
        "X-Auth-Subject\t",
        "X-Auth-Subject\u{0}",
        "X-Auth-Subject\r",
        "X Auth Subject",
    ] {
        table.fields(&format!("{name:?}"), format!("{name}: root\r\n"), Refuse);
    }
    let mut scene = scene();
    run(&mut scene, &table, 38, "hostile/identities");
    for seen in scene.complete.lock().unwrap().iter() {
        assert!(!seen.text().contains("root"), "{}", seen.text());
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_the_same_request() {
    let scene = scene();
    let whole = scene.bytes(b"POST /bytewise HTTP/1.1\r\n{host}{auth}Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: 1\r\n\r\n");
    let mut wire = scene.gate.connect();
    for byte in &whole {
        wire.send([*byte]).unwrap();
    }
    assert_eq!(wire.answer().unwrap().status(), 200);
    assert_eq!(scene.upstream.last().body, b"hello");
    for cut in (1..whole.len()).step_by(7) {
        let mut wire = scene.gate.connect();
        wire.send(&whole[..cut]).unwrap();
        wire.send(&whole[cut..]).unwrap();
        assert_eq!(wire.answer().unwrap().status(), 200, "cut at {cut}");
    }
    within(Duration::from_secs(5), "all of them arrived whole", || {
        scene.complete.lock().unwrap().iter().all(|seen| seen.body == b"hello").then_some(())
    });
}

#[test]
fn a_refused_request_ends_its_connection_when_its_end_is_unknown() {
    let scene = scene();
    let follow = String::from_utf8(scene.bytes(b"GET /follows HTTP/1.1\r\n{host}{auth}\r\n")).unwrap();
    for (status, head) in [
        (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
        (501, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\nX : y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\0\r\n\r\n"),
    ] {
        let mut wire = scene.gate.connect();
        drop(wire.send(format!("{head}{follow}")));
        let answer = wire.answer().unwrap();
        assert_eq!(answer.status(), status, "{head:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{head:?}");
        assert!(wire.is_closed(), "{head:?}: nothing more is read");
    }
    assert_eq!(scene.upstream.count(), 0);
}
