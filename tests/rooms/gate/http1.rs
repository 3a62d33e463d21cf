//! HTTP/1.1 as raw bytes.

use std::time::Duration;

use crate::gate::bed::{Bed, error_of, get, routes, token, while_taken};

#[test]
fn a_request_that_may_pass_is_forwarded_and_its_connection_kept() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    for _ in 0..2 {
        let request =
            "POST /deals/7?a=b HTTP/1.1\r\nHost: api.example\r\nContent-Length: 5\r\nAuthorization: Bearer";
        client.send(format!("{request} {}\r\n\r\nhello", token("app", "read"))).unwrap();
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"hello"[..]));
        let seen = bed.upstream.seen();
        assert_eq!(
            (seen.line.as_str(), seen.body.as_deref()),
            ("POST /deals/7?a=b HTTP/1.1", Some(&b"hello"[..]))
        );
        let field =
            |name: &str| seen.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(field("host"), Some("api.example"));
        assert_eq!(field("x-request-id"), answer.field("x-request-id"));
        assert_eq!(field("x-request-id").unwrap().len(), 32);
    }
    assert_eq!(bed.metric(r#"portcullis_connections{listener="public"}"#), 1);
}

#[test]
fn refusals_say_why_and_keep_the_connection() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send("GET /deals HTTP/1.1\r\nHost: gate\r\n\r\n").unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), error_of(&answer).as_str()), (401, "missing_token"));
    assert_eq!(answer.field("www-authenticate"), Some(r#"Bearer realm="portcullis""#));
    client.send("HEAD /deals HTTP/1.1\r\nHost: gate\r\n\r\n").unwrap();
    let answer = client.answer_to(true).unwrap();
    assert_eq!(answer.status(), 401);
    assert_ne!(answer.field("content-length"), Some("0"));
    client
        .send(format!(
            "GET /deals HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {}\r\n\r\n",
            token("app", "write")
        ))
        .unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), error_of(&answer).as_str()), (403, "insufficient_scope"));
    assert!(answer.field("www-authenticate").unwrap().ends_with(r#"scope="read""#));
    // A small body that nobody wants is read; what follows it is the next request.
    client.send("POST /deals HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!(client.answer().unwrap().status(), 401);
    client
        .send(
            "POST /deals HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.answer().unwrap().status(), 401);
    client.send(
        "POST /deals HTTP/1.1\r\nHost: gate\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
    ).unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), answer.field("grpc-status")), (200, Some("16")));
    client.send(get("/ok")).unwrap();
    assert_eq!(client.answer().unwrap().status(), 200);
    assert_eq!(bed.upstream.seen().line, "GET /open/ok HTTP/1.1");
    assert!(bed.upstream.is_untouched());
}

#[test]
fn a_refusal_reaches_a_client_that_sends_more_than_is_read() {
    let bed = Bed::start(|_| {});
    for request in [
        "POST /deals HTTP/1.1\r\nHost: gate\r\nContent-Length: 4000000\r\n\r\n",
        "POST /deals HTTP/1.1\r\nHost: gate\r\nContent-Length: 4000000\r\nExpect: 100-continue\r\n\r\n",
    ] {
        let mut client = bed.connect();
        client.send(request).unwrap();
        while_taken(1000, || client.send([b'x'; 4000]));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), answer.field("connection")), (401, Some("close")));
        client.finish_sending();
        assert!(client.is_closed());
    }
    assert!(bed.upstream.is_untouched());
}

#[test]
fn a_connection_that_ends_with_bytes_unread_is_closed_and_not_reset() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    let head = "POST /deals HTTP/1.1\r\nHost: gate\r\nContent-Length: 4000000\r\n\r\n";
    // At once, and more than the gate reads at once.
    client.send([head.as_bytes(), &[b'x'; 200_000]].concat()).unwrap();
    assert_eq!(client.answer().unwrap().status(), 401);
    assert_eq!(client.some().unwrap(), b"", "an end, and no error");
    assert!(bed.upstream.is_untouched());
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    let post = b"POST /open/echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 3\r\n\r\nabc";
    client
        .send([&post[..], &get("/hold"), b"GET /deals HTTP/1.1\r\nHost: gate\r\n\r\n", &get("/ok")].concat())
        .unwrap();
    assert_eq!(client.answer().unwrap().body, b"abc");
    bed.upstream.go();
    assert_eq!(client.answer().unwrap().body, b"held");
    assert_eq!(client.answer().unwrap().status(), 401);
    assert_eq!(client.answer().unwrap().status(), 200);
    let lines: Vec<String> = (0..3).map(|_| bed.upstream.seen().line).collect();
    let expected = ["POST /open/echo HTTP/1.1", "GET /open/hold HTTP/1.1", "GET /open/ok HTTP/1.1"];
    assert_eq!(lines, expected);
}

#[test]
fn heads_that_cannot_be_read_are_refused_and_end_the_connection() {
    let bed = Bed::start(|_| {});
    for (request, status, error) in [
        ("GET /open HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        ("GET /open HTTP/1.1\nHost: gate\n\n", 400, "invalid_request"),
        ("GET /open HTTP/1.1\r\nHost: gate\r\nHost: gate\r\n\r\n", 400, "invalid_request"),
        ("GET /open#a HTTP/1.1\r\nHost: gate\r\n\r\n", 400, "invalid_request"),
        ("GET /open HTTP/1.1\r\nHost: gate\r\nA : b\r\n\r\n", 400, "invalid_request"),
        (
            "POST /open HTTP/1.1\r\nHost: gate\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            400,
            "invalid_request",
        ),
        (
            "POST /open HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "invalid_request",
        ),
        (
            "POST /open HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
            "invalid_request",
        ),
        ("CONNECT gate:443 HTTP/1.1\r\nHost: gate\r\n\r\n", 405, "method_not_allowed"),
        ("GET /open HTTP/1.2\r\nHost: gate\r\n\r\n", 505, "invalid_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "invalid_request"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", 400, "invalid_request"),
    ] {
        let mut client = bed.connect();
        client.send(request).unwrap();
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), error_of(&answer).as_str()), (status, error), "{request:?}");
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(client.is_closed(), "{request:?}");
        // Behind requests that are still being served, it is their turn first.
        let mut client = bed.connect();
        client.send([&get("/hold"), request.as_bytes()].concat()).unwrap();
        assert_eq!(bed.upstream.seen().line, "GET /open/hold HTTP/1.1");
        bed.upstream.go();
        assert_eq!(client.answer().unwrap().body, b"held");
        assert_eq!(client.answer().unwrap().status(), status, "{request:?}");
        assert!(client.is_closed(), "{request:?}");
    }
    let mut client = bed.connect();
    client.send("HEAD /open HTTP/1.1\r\nHost: g@te\r\n\r\n").unwrap();
    assert_eq!(client.answer_to(true).unwrap().status(), 400);
    assert!(client.is_closed());
    assert!(bed.upstream.is_untouched());
}

#[test]
fn a_body_that_cannot_be_read_ends_its_request_and_the_connection() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client
        .send("POST /open/echo HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .unwrap();
    client.send("3\nabc\n0\r\n\r\n").unwrap();
    client.send(get("/smuggled")).unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")));
    client.finish_sending();
    assert!(client.is_closed());
    assert_eq!(bed.upstream.seen().body, None);
    assert!(bed.upstream.is_untouched());
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send([get("/ok"), get("/hints"), get("/hints-at-once"), get("/ok")].concat()).unwrap();
    assert_eq!(client.answer().unwrap().status(), 200);
    let hint = client.head().unwrap();
    assert_eq!((hint.status, hint.field("link")), (103, Some("</a>")));
    bed.upstream.go();
    assert_eq!(client.answer().unwrap().body, b"hinted");
    let hint = client.head().unwrap();
    assert_eq!((hint.status, hint.field("link")), (103, Some("</b>")));
    assert_eq!(client.answer().unwrap().body, b"hinted");
    assert_eq!(client.answer().unwrap().status(), 200);
    let mut old = bed.connect();
    old.send("GET /open/hints-at-once HTTP/1.0\r\nHost: gate\r\n\r\n").unwrap();
    assert!(old.until(b"\r\n\r\n").unwrap().starts_with(b"HTTP/1.0 200 OK\r\n"));
}

#[test]
fn a_body_is_asked_for_only_when_the_request_may_pass() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    let request = "HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(format!("POST /open/echo {request}")).unwrap();
    assert_eq!(client.head().unwrap().status, 100);
    client.send("hello").unwrap();
    assert_eq!(client.answer().unwrap().body, b"hello");
    client.send(format!("POST /deals {request}")).unwrap();
    assert_eq!(client.answer().unwrap().status(), 401);
}

#[test]
fn nobody_is_asked_for_a_body_who_does_not_wait_to_be_asked() {
    let bed = Bed::start(|_| {});
    let rows = [("1.1", ""), ("1.0", "Expect: 100-continue\r\n")];
    for (before, (version, expect)) in rows.into_iter().enumerate() {
        let mut client = bed.connect();
        let fields = format!("Host: gate\r\nContent-Length: 5\r\n{expect}");
        client.send(format!("POST /open/echo HTTP/{version}\r\n{fields}\r\n")).unwrap();
        // The upstream has the head, so the gate has looked for the body.
        bed.upstream.reached(before + 1);
        client.send("hello").unwrap();
        let head = client.until(b"\r\n\r\n").unwrap();
        let ok = format!("HTTP/{version} 200 OK\r\n");
        assert!(head.starts_with(ok.as_bytes()), "{}", head.escape_ascii());
        assert_eq!(client.take(5).unwrap(), b"hello");
        bed.upstream.seen();
    }
}

#[test]
fn a_request_without_a_body_reaches_the_upstream_without_one() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    for (method, body, framing) in [
        ("GET", "\r\n", None),
        ("PUT", "\r\n", Some(("content-length", "0"))),
        ("PUT", "Content-Length: 0\r\n\r\n", Some(("content-length", "0"))),
        ("PUT", "Content-Length: 5\r\n\r\nhello", Some(("content-length", "5"))),
        ("PUT", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Some(("transfer-encoding", "chunked"))),
    ] {
        client.send(format!("{method} /open/ok HTTP/1.1\r\nHost: gate\r\n{body}")).unwrap();
        assert_eq!(client.answer().unwrap().status(), 200);
        let fields = bed.upstream.seen().fields;
        let framed = fields.iter().find(|(name, _)| name == "content-length" || name == "transfer-encoding");
        let framed = framed.map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(framed, framing, "{method} {body:?}");
    }
}

#[test]
fn the_end_of_an_answer_may_come_long_after_its_last_byte() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send([get("/chunks"), get("/ok")].concat()).unwrap();
    assert_eq!(client.head().unwrap().field("transfer-encoding"), Some("chunked"));
    assert_eq!(client.until(b"hello\r\n").unwrap(), b"5\r\nhello\r\n");
    bed.upstream.go();
    assert_eq!(client.until(b"\r\n\r\n").unwrap(), b"0\r\n\r\n");
    assert_eq!(client.answer().unwrap().status(), 200);
}

#[test]
fn a_client_that_asks_for_the_end_gets_it_behind_its_answer() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    let last = "GET /open/ok HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n";
    client.send([last.as_bytes(), &get("/smuggled")].concat()).unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    assert!(client.is_closed());
    bed.upstream.seen();
    assert!(bed.upstream.is_untouched());
}

#[test]
fn an_answer_that_overtakes_the_body_ends_the_connection_and_says_so() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send("POST /open/early HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\n\r\n").unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]));
    assert_eq!(answer.field("connection"), Some("close"));
    client.finish_sending();
    assert!(client.is_closed());
}

#[test]
fn another_protocol_flows_both_ways_and_nothing_of_it_is_taken_for_a_request() {
    let bed = Bed::start(|_| {});
    let ask = |path: &str| {
        format!("GET /open{path} HTTP/1.1\r\nHost: gate\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n")
    };
    let mut client = bed.connect();
    client.send(ask("/switch") + "early\n").unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("test")));
    assert_eq!(client.take(12).unwrap(), b"hello EARLY\n");
    client.send("GET / nothing\0\n").unwrap();
    assert_eq!(client.take(15).unwrap(), b"GET / NOTHING\0\n");
    client.finish_sending();
    assert!(client.is_closed());
    // Refused, what follows is a request, and is read as strictly as any.
    let mut client = bed.connect();
    client.send([ask("/hold").as_bytes(), &get("/ok"), b"GET / nothing\n"].concat()).unwrap();
    bed.upstream.go();
    assert_eq!(client.answer().unwrap().body, b"held");
    assert_eq!(client.answer().unwrap().status(), 200);
    assert_eq!(client.answer().unwrap().status(), 400);
    assert!(client.is_closed());
}

#[test]
fn an_answer_that_is_cut_short_never_looks_whole() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send([&get("/cut")[..], b"GET / nothing\n"].concat()).unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")));
    assert_eq!(client.take(4).unwrap(), b"half");
    assert!(client.is_closed());
}

#[test]
fn a_client_that_goes_away_ends_the_request_at_the_upstream() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send("POST /open/echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    drop(client);
    assert_eq!(bed.upstream.seen().body, None);
}

#[test]
fn a_client_that_has_sent_everything_may_say_so_and_still_gets_its_answers() {
    let bed = Bed::start(|settings| settings.limits.idle_connection_timeout = Duration::from_secs(2));
    let mut client = bed.connect();
    client
        .send([&get("/ok")[..], &get("/hold"), b"GET /deals HTTP/1.1\r\nHost: gate\r\n\r\n"].concat())
        .unwrap();
    client.finish_sending();
    assert_eq!(client.answer().unwrap().status(), 200);
    bed.upstream.go();
    assert_eq!(client.answer().unwrap().body, b"held");
    assert_eq!(client.answer().unwrap().status(), 401);
    assert!(client.is_closed());
    // It is not waited for without end: it may as well have gone away.
    let mut client = bed.connect();
    client.send(get("/hold")).unwrap();
    client.finish_sending();
    assert!(client.is_closed());
    assert_eq!(
        bed.metric(r#"portcullis_requests_total{method="GET",route="/open/{*rest}",status="499"}"#),
        1
    );
}

#[test]
fn a_reload_is_in_force_for_the_next_request_of_an_old_connection() {
    let bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send(get("/ok")).unwrap();
    assert_eq!(client.answer().unwrap().status(), 200);
    let closed: Vec<_> = routes().into_iter().filter(|route| !route.anonymous).collect();
    bed.reload(&closed);
    client.send(get("/ok")).unwrap();
    assert_eq!(client.answer().unwrap().status(), 401);
    bed.reload(&routes());
    client.send(get("/ok")).unwrap();
    assert_eq!(client.answer().unwrap().status(), 200);
}
