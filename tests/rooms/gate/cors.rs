//! Preflights of browsers, and which of the gate's own responses pages of other origins can read.

use std::time::Duration;

use portcullis::enforce::policy::{CorsOrigins, CorsSettings, WebOrigin};
use testkit::wire::Answer;

use crate::gate::bed::{Bed, error_of, routes};

const PAGE: &str = "https://app.example";
const OTHER_PAGE: &str = "https://other.example";

/// A gate whose protected route has CORS for one page, and whose anonymous route has none.
fn bed() -> Bed {
    let bed = Bed::start(|settings| settings.limits.body_bytes = Some(4));
    let mut routes = routes();
    routes[0].cors = Some(CorsSettings {
        origins: CorsOrigins::Listed(vec![WebOrigin::parse(PAGE).unwrap()]),
        methods: Vec::new(),
        headers: Vec::new(),
        expose: Vec::new(),
        credentials: false,
        max_age: Duration::from_secs(60),
    });
    bed.reload(&routes);
    bed
}

/// A request with these fields, and CRLF behind each.
fn ask(bed: &Bed, line: &str, fields: &[&str]) -> Answer {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    bed.connect().exchange(format!("{line} HTTP/1.1\r\nHost: gate\r\n{fields}\r\n")).unwrap()
}

fn allowed_origin(answer: &Answer) -> Option<&str> {
    answer.field("access-control-allow-origin")
}

#[test]
fn a_preflight_is_answered_without_a_token_and_reaches_no_upstream() {
    let bed = bed();
    let (origin, method) = (format!("Origin: {PAGE}"), "Access-Control-Request-Method: PUT");
    let mut client = bed.connect();
    for _ in 0..2 {
        client
            .send(format!("OPTIONS /deals HTTP/1.1\r\nHost: gate\r\n{origin}\r\n{method}\r\n\r\n"))
            .unwrap();
        let answer = client.answer().unwrap();
        assert_eq!((answer.status(), allowed_origin(&answer)), (204, Some(PAGE)));
        assert_eq!(answer.field("access-control-allow-methods"), Some("PUT"));
        assert_eq!(answer.field("connection"), None, "the next request may follow");
    }
    let answer = ask(&bed, "OPTIONS /deals", &[&format!("Origin: {OTHER_PAGE}"), method]);
    assert_eq!((answer.status(), allowed_origin(&answer)), (403, None));
    let waiting = ["Expect: 100-continue", "Content-Length: 4"];
    let answer = ask(&bed, "OPTIONS /deals", &[&[&*origin, method][..], &waiting].concat());
    assert_eq!((answer.status(), answer.field("connection")), (204, Some("close")), "its body was not read");
    assert!(bed.upstream.is_untouched());
}

#[test]
fn only_a_preflight_is_taken_for_one() {
    let bed = bed();
    let (origin, method) = (format!("Origin: {PAGE}"), "Access-Control-Request-Method: PUT");
    for (line, fields) in [
        ("OPTIONS /deals", &[&*origin][..]),
        ("OPTIONS /deals", &[method]),
        ("OPTIONS /deals", &[&origin, method, method]),
        ("OPTIONS /deals", &[&origin, "Access-Control-Request-Method: P T"]),
        ("GET /deals", &[&origin, method]),
    ] {
        let answer = ask(&bed, line, fields);
        assert_eq!((answer.status(), &*error_of(&answer)), (401, "missing_token"), "{line} {fields:?}");
    }
    let answer = ask(&bed, "OPTIONS /open/a", &[&origin, method]);
    assert_eq!((answer.status(), allowed_origin(&answer)), (200, None), "a route without CORS");
    assert_eq!(bed.upstream.seen().line, "OPTIONS /open/a HTTP/1.1");
}

#[test]
fn a_page_can_read_why_its_request_was_refused_whether_or_not_a_route_was_looked_up() {
    let bed = bed();
    for (line, length, status) in [("POST /deals", 4, 401), ("POST /deals", 5, 413), ("POST /open/a", 5, 413)]
    {
        for page in [PAGE, OTHER_PAGE] {
            // Not sent, so that the end of the connection is not awaited by anyone.
            let fields = [
                format!("Origin: {page}"),
                format!("Content-Length: {length}"),
                "Expect: 100-continue".into(),
            ];
            let answer = ask(&bed, line, &fields.each_ref().map(String::as_str));
            let expected = (page == PAGE && line != "POST /open/a").then_some(PAGE);
            assert_eq!(
                (answer.status(), allowed_origin(&answer)),
                (status, expected),
                "{line} {length} {page}"
            );
        }
    }
    assert!(bed.upstream.is_untouched());
}
