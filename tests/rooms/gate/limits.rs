//! Every limit and every timeout of the listener is reached.

use std::time::{Duration, Instant};

use testkit::wire::Wire;

use crate::gate::bed::{Bed, error_of, get};

pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// Waits for the end of a connection, which must not come before `SHORT` has passed.
fn ends_after_short(client: &mut Wire, since: Instant) {
    assert!(client.is_closed());
    let took = since.elapsed();
    assert!(took >= SHORT, "{took:?}");
}

#[test]
fn a_head_has_to_be_complete_in_time() {
    let bed = Bed::start(|settings| settings.limits.header_timeout = SHORT);
    let mut client = bed.connect();
    let since = Instant::now();
    client.send("G").unwrap();
    ends_after_short(&mut client, since);
    let mut client = bed.connect();
    client.send(get("/ok")).unwrap();
    client.answer().unwrap();
    let since = Instant::now();
    client.send("GET /open/ok HTTP/1.1\r\nHost: gate\r\nA:").unwrap();
    ends_after_short(&mut client, since);
    // What comes behind a request that is being served has time from the end of its answer.
    let mut client = bed.connect();
    client.send([&get("/hold")[..], b"GET /open/ok HTTP"].concat()).unwrap();
    bed.upstream.seen();
    let since = Instant::now();
    bed.upstream.go();
    assert_eq!(client.answer().unwrap().body, b"held");
    ends_after_short(&mut client, since);
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let bed = Bed::start(|settings| settings.limits.idle_connection_timeout = SHORT);
    let since = Instant::now();
    ends_after_short(&mut bed.connect(), since);
    let mut client = bed.connect();
    client.send(get("/ok")).unwrap();
    let since = Instant::now();
    assert_eq!(client.answer().unwrap().status(), 200);
    ends_after_short(&mut client, since);
    bed.until_open(0);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_not_waited_for() {
    let bed = Bed::start(|settings| settings.limits.idle_connection_timeout = SHORT);
    let mut client = bed.connect();
    client.send(get("/flood")).unwrap();
    client.until(b"\r\n\r\n").unwrap();
    bed.until_open(0);
}

#[test]
fn a_request_that_takes_its_time_is_waited_for() {
    let bed = Bed::start(|settings| {
        settings.limits.idle_connection_timeout = SHORT;
        settings.limits.header_timeout = SHORT;
    });
    let mut client = bed.connect();
    client.send(get("/hold")).unwrap();
    bed.upstream.seen();
    // Another connection lives through both timeouts meanwhile.
    let since = Instant::now();
    ends_after_short(&mut bed.connect(), since);
    bed.upstream.go();
    assert_eq!(client.answer().unwrap().body, b"held");
}

#[test]
fn connections_above_the_limit_are_turned_away_until_there_is_room() {
    let bed = Bed::start(|settings| settings.limits.connections = 2);
    let mut open: Vec<Wire> = (0..2).map(|_| bed.connect()).collect();
    for client in &mut open {
        client.send(get("/ok")).unwrap();
        assert_eq!(client.answer().unwrap().status(), 200);
    }
    let mut client = bed.connect();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), error_of(&answer).as_str()), (503, "temporarily_unavailable"));
    assert!(answer.field("retry-after").is_some());
    assert!(client.is_closed());
    assert_eq!(bed.metric(r#"portcullis_decisions_total{decision="unavailable",reason="overloaded"}"#), 1);
    drop(open.pop());
    bed.until_open(1);
    let mut client = bed.connect();
    client.send(get("/ok")).unwrap();
    assert_eq!(client.answer().unwrap().status(), 200);
}

#[test]
fn connections_of_one_address_are_limited() {
    let bed = Bed::start(|settings| settings.limits.connections_per_ip = Some(1));
    let mut first = bed.connect();
    first.send(get("/ok")).unwrap();
    assert_eq!(first.answer().unwrap().status(), 200);
    assert_eq!(bed.connect().answer().unwrap().status(), 503);
    first.send(get("/ok")).unwrap();
    assert_eq!(first.answer().unwrap().status(), 200);
}

#[test]
fn a_head_is_limited_in_bytes_and_fields() {
    let bed = Bed::start(|settings| {
        settings.limits.header_bytes = 2000;
        settings.limits.headers = 10;
    });
    let (filler, fields) = ("x".repeat(2000), "a: b\r\n".repeat(10));
    for (request, status) in [
        (format!("GET /open/{filler} HTTP/1.1\r\nHost: gate\r\n\r\n"), 414),
        (format!("GET /open/ok HTTP/1.1\r\nHost: gate\r\nA: {filler}\r\n\r\n"), 431),
        (format!("GET /open/ok HTTP/1.1\r\nHost: gate\r\n{fields}\r\n"), 431),
    ] {
        let mut client = bed.connect();
        client.send(&request).unwrap();
        assert_eq!(client.answer().unwrap().status(), status);
        assert!(client.is_closed());
    }
    let mut client = bed.connect();
    client.send(format!("GET /open/ok HTTP/1.1\r\nHost: gate\r\n{}\r\n", "a: b\r\n".repeat(9))).unwrap();
    assert_eq!(client.answer().unwrap().status(), 200);
}

#[test]
fn a_head_may_be_as_long_as_configured() {
    let bed = Bed::start(|settings| {
        settings.limits.header_bytes = 200_000;
        settings.limits.headers = 3000;
    });
    let mut client = bed.connect();
    let long = format!("GET /open/ok HTTP/1.1\r\nHost: gate\r\nA: {}\r\n\r\n", "x".repeat(190_000));
    let many = format!("GET /open/ok HTTP/1.1\r\nHost: gate\r\n{}\r\n", "a: b\r\n".repeat(2999));
    for request in [long, many] {
        client.send(request).unwrap();
        assert_eq!(client.answer().unwrap().status(), 200);
    }
}

#[test]
fn a_body_is_limited_by_what_is_announced_and_by_what_comes() {
    let bed = Bed::start(|settings| settings.limits.body_bytes = Some(10));
    let mut client = bed.connect();
    client.send("POST /open/echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 10\r\n\r\n0123456789").unwrap();
    assert_eq!(client.answer().unwrap().body, b"0123456789");
    bed.upstream.seen();
    client.send("POST /open/echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 11\r\n\r\n0123456789a").unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), error_of(&answer).as_str()), (413, "request_too_large"));
    client
        .send("POST /open/echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    assert_eq!(client.answer().unwrap().status(), 413);
    assert!(client.is_closed());
    assert!(bed.upstream.is_untouched());
    let mut client = bed.connect();
    client
        .send("POST /open/echo HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n")
        .unwrap();
    client.send("6\r\n678901\r\n0\r\n\r\n").unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status(), error_of(&answer).as_str()), (413, "request_too_large"));
    client.finish_sending();
    assert!(client.is_closed());
    assert_eq!(bed.upstream.seen().body, None);
}
