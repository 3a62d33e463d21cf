//! Request targets with encoded slashes, and routes whose requests are not logged.

use testkit::frames::{self, END_STREAM, End, Frames};
use testkit::gate::{Gate, check, field};
use testkit::h2_client::{self, H2Client};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{app, block_on};

/// Targets that pass on a route that keeps encoded slashes.
const KEPT: &[&str] = &[
    "/packages/@scope%2fname",
    "/packages/@scope%2Fname",
    "/packages/%40scope%2fname?write=true&x=%2f..%2f",
    "/packages/group%2Fsub%2fproject/issues/7",
    "/packages/a%2f",
    "/packages/a%252fb%2fc",
    "/packages/%61%2f%62",
];

/// Targets that pass on no route.
const NEVER: &[&str] = &[
    "/packages/%2f",
    "/packages/%2Fa",
    "/packages/a%2f/b",
    "/packages/a%2f%2fb",
    "/packages//a%2fb",
    "/packages/..%2fprivate",
    "/packages/a%2f..%2f..%2fprivate",
    "/packages/%2e%2e%2fprivate",
    "/packages/a%2f%2E%2e/b",
    "/packages/a%2f.",
    "/packages/a%2f..;x/b",
    "/packages/a%2f%252e%252e%252fb",
    "/packages/a%2fb/../c",
    "/packages/a%5cb",
    "/packages/a%2fb%5C..%5c",
    "/packages/a%2fb\\c",
    "/packages/a%2fb%00",
    "/packages/a%2fb%0d%0a",
    "/packages/a%2fb%2",
    "/packages/a%2fb%c0%af",
    "/..%2fpackages/a",
    "/packages%2f..%2fprivate/a",
];

fn keeping(upstream: &RawUpstream, issuer: &Issuer) -> Settings {
    Settings::tls()
        .upstream("api", &upstream.url(), "")
        .issuer(issuer)
        .route("/packages/{*rest}", "encoded_slashes = \"keep\"")
        .route("/packages/private%2Fthing", "encoded_slashes = \"keep\"\nscopes = [\"admin\"]")
        .route("/packages/plain/{name}", "")
        .route("/private/{*rest}", "scopes = [\"admin\"]")
}

#[test]
fn a_query_goes_upstream_byte_for_byte_whatever_it_holds() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::tls().guarding(&upstream.url(), &issuer));
    let bytes: Vec<u8> = (0x21..=0xff).filter(|byte| !matches!(byte, b'#' | 0x7f)).collect();
    for query in [&b"filter={\"a\":1}"[..], b"q=<b>`x`\\^|", b"%zz&%2f..%2f", b"?a?", &bytes] {
        let head = format!("host: x\r\nauthorization: Bearer {}\r\n\r\n", issuer.good());
        let request = [b"GET /deals?", query, b" HTTP/1.1\r\n", head.as_bytes()].concat();
        let answer = gate.connect().exchange(&request).unwrap();
        assert_eq!(answer.status(), 200, "{}", query.escape_ascii());
        let sent = [b"GET /deals?", query, b" HTTP/1.1\r\n"].concat();
        assert!(upstream.last().head.starts_with(&sent), "{}", query.escape_ascii());
    }
    let mut client = Frames::connect(&gate);
    let bearer = format!("Bearer {}", issuer.good());
    // The HTTP/2 library rejects targets with `"`, `<` or `>` (docs/operations.md, Known limits).
    let odd =
        [(1, "filter={a:1}", true), (3, "q=`x`\\^|[]", true), (5, "%zz&%2f..%2f", true), (7, "a=\"", false)];
    for (stream, query, passes) in odd {
        let path = format!("/deals?{query}");
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "api.test"),
            (":path", &*path),
            ("authorization", &*bearer),
        ];
        client.send(frames::headers(stream, END_STREAM, &fields));
        let end = if passes { End::Status(200) } else { End::Reset(1) };
        assert_eq!(client.end_of(stream), end, "{query} over HTTP/2");
        assert_eq!(upstream.last().target() == path, passes, "{query}");
    }
    for query in [&b"a#b"[..], b"a\tb", b"a\x7f", b"a\0", b"\x1b"] {
        let request = [b"GET /deals?", query, b" HTTP/1.1\r\nhost: x\r\n\r\n"].concat();
        assert_eq!(gate.connect().exchange(&request).unwrap().status(), 400, "{}", query.escape_ascii());
    }
}

/// Holds docs/configuration.md, Settings: routes[].encoded_slashes
#[test]
fn an_encoded_slash_goes_upstream_as_it_came_where_the_route_keeps_it() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&keeping(&upstream, &issuer));
    let token = issuer.good();
    for (count, target) in KEPT.iter().enumerate() {
        let answer = gate.get(target).token(&token).send();
        assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
        assert_eq!((upstream.count(), upstream.last().target().as_str()), (count + 1, *target));
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!(field(&record, "route"), Some("/packages/{*rest}"), "{record}");
    }
    // Judged as one segment: neither the literal route below nor the one of another depth is meant.
    let admin = issuer.token().claim("scope", "admin").build();
    for (target, plain, with_scope) in [
        ("/packages/private%2fthing", 403, 200),
        ("/packages/private%2Fthing", 403, 200),
        ("/packages/%70rivate%2fthing", 403, 200),
        ("/packages/private/thing", 200, 200),
        ("/packages/private%2fother", 200, 200),
        ("/packages%2fprivate%2fthing", 400, 400),
        ("/private%2fx", 400, 400),
        ("/private/x%2fy", 400, 400),
        ("/packages/plain/a%2fb", 400, 400),
        ("/nowhere/a%2fb", 400, 400),
    ] {
        assert_eq!(gate.get(target).token(&token).send().status(), plain, "{target}");
        assert_eq!(gate.get(target).token(&admin).send().status(), with_scope, "{target} with the scope");
    }
    // A token is needed all the same.
    let answer = gate.get("/packages/a%2fb").send();
    assert_eq!(answer.status(), 401, "{}", answer.text());
}

#[test]
fn what_could_climb_or_be_empty_behind_an_encoded_slash_is_rejected_by_either_protocol() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&keeping(&upstream, &issuer));
    let token = issuer.good();
    for target in NEVER {
        let answer = gate.get(target).token(&token).send();
        assert_eq!(answer.status(), 400, "{target}: {}", answer.text());
    }
    block_on(async {
        let mut client = H2Client::connect(&gate).await;
        for target in NEVER {
            let body = app::full("");
            let answer = client.exchange(h2_client::request("GET", target, &token, body)).await.unwrap();
            assert_eq!(answer.status(), 400, "{target} over HTTP/2");
        }
        assert_eq!(upstream.count(), 0, "nothing reached the upstream");
        for target in KEPT {
            let body = app::full("");
            let answer = client.exchange(h2_client::request("GET", target, &token, body)).await.unwrap();
            assert_eq!((answer.status(), upstream.last().target().as_str()), (200, *target));
        }
    });
}

/// Holds docs/configuration.md, Settings: routes[].encoded_slashes
#[test]
fn encoded_slashes_are_rejected_by_default_and_check_says_what_a_literal_one_needs() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    for target in KEPT.iter().filter(|target| !target.contains("%252f")) {
        let (answer, reason) = gate.decision(|| gate.get(target).token(&issuer.good()).send());
        assert_eq!((answer.status(), reason.as_str()), (400, "deny/bad_target"), "{target}");
    }
    assert_eq!(upstream.count(), 0);
    let outcome = check(&Settings::plaintext().guarding(&upstream.url(), &issuer).route("/a%2fb", ""));
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("encoded_slashes = \"keep\""), "{outcome:?}");
}

/// Holds docs/configuration.md, Settings: routes[].access_log
#[test]
fn requests_of_a_quiet_route_leave_no_line_unless_they_are_refused_and_are_counted() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/healthz", "anonymous = true\naccess_log = false")
        .route("/quiet", "access_log = false")
        .route("/loud", "");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    let id = |target: &str, token: Option<&str>| {
        let request = gate.get(target);
        let answer = token.map_or(request.clone(), |token| request.token(token)).send();
        answer.field("x-request-id").unwrap().to_owned()
    };
    let quiet = [id("/healthz", None), id("/quiet", Some(&token)), id("/quiet", Some(&token))];
    let lines = [id("/quiet", None), id("/healthz", Some("no.token.here")), id("/loud", Some(&token))];
    for request_id in &lines {
        gate.record_of(request_id);
    }
    for request_id in &quiet {
        assert!(!gate.log().text().contains(request_id), "{}", gate.log().text());
    }
    let requests = |route: &str, status: &str| {
        gate.metrics().sum("portcullis_requests_total", &[("route", route), ("status", status)])
    };
    assert_eq!(
        (requests("/healthz", "200"), requests("/quiet", "200"), requests("/quiet", "401")),
        (1., 2., 1.)
    );
    let allowed = gate.metrics().sum("portcullis_decisions_total", &[("decision", "allow")]);
    assert_eq!(allowed, 4.0);
}
