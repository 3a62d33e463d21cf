//! What is counted and logged.

use crate::gate::bed::{Bed, get, token};
use crate::gate::limits::SHORT;

/// Sends one request for each kind of decision; returns the token that passes.
fn play(bed: &Bed) -> String {
    let mut client = bed.connect();
    let good = token("app", "read");
    let with = |path: &str, token: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    for (request, status) in [
        (with("/private/7?name=somebody", &good), 200),
        (with("/private/7", &good), 200),
        (with("/private/7", &token("app", "write")), 403),
        ("GET /private HTTP/1.1\r\nHost: gate\r\n\r\n".into(), 401),
        ("BREW /shadow HTTP/1.1\r\nHost: gate\r\n\r\n".into(), 200),
        (String::from_utf8(get("/ok")).unwrap(), 200),
        ("GET / HTTP/1.1\r\nHost: gate\r\nA : b\r\n\r\n".into(), 400),
    ] {
        client.send(request).unwrap();
        assert_eq!(client.answer().unwrap().status(), status);
    }
    good
}

#[test]
fn every_request_is_counted() {
    let bed = Bed::start(|_| {});
    play(&bed);
    for (series, count) in [
        (r#"portcullis_requests_total{method="GET",route="/{*rest}",status="200"}"#, 2),
        (r#"portcullis_requests_total{method="GET",route="/{*rest}",status="401"}"#, 1),
        (r#"portcullis_requests_total{method="GET",route="/{*rest}",status="403"}"#, 1),
        (r#"portcullis_requests_total{method="other",route="/shadow/{*rest}",status="200"}"#, 1),
        (r#"portcullis_requests_total{method="GET",route="none",status="400"}"#, 1),
        (r#"portcullis_decisions_total{decision="allow",reason="none"}"#, 3),
        (r#"portcullis_decisions_total{decision="deny",reason="insufficient_scope"}"#, 1),
        (r#"portcullis_decisions_total{decision="deny",reason="missing"}"#, 1),
        (r#"portcullis_decisions_total{decision="deny",reason="malformed"}"#, 1),
        (r#"portcullis_decisions_total{decision="shadow_deny",reason="missing"}"#, 1),
        (r#"portcullis_request_duration_seconds_count{route="/{*rest}"}"#, 4),
        (r#"portcullis_enforce_duration_seconds_count{proof="cached"}"#, 1),
        (r#"portcullis_enforce_duration_seconds_count{proof="fresh"}"#, 2),
        (r#"portcullis_enforce_duration_seconds_count{proof="none"}"#, 3),
        (r#"portcullis_client_requests_total{client="app",route="/{*rest}"}"#, 2),
    ] {
        assert_eq!(bed.metric(series), count, "{series}");
    }
}

#[test]
fn every_request_is_logged_without_naming_anybody() {
    let mut bed = Bed::start(|_| {});
    let secret = play(&bed);
    let lines = bed.log();
    let decided: Vec<&str> = lines.iter().map(|line| line["decision"].as_str().unwrap()).collect();
    assert_eq!(decided, ["allow", "allow", "deny", "deny", "shadow_deny", "allow", "deny"]);
    let first = &lines[0];
    for (member, value) in [
        ("method", "GET"),
        ("route", "/{*rest}"),
        ("issuer", "https://issuer.example/"),
        ("client_address", "127.0.0.1"),
        ("protocol", "HTTP/1.1"),
        ("upstream", "recorder"),
    ] {
        assert_eq!(first[member], value, "{first}");
    }
    assert_eq!(first["status"], 200);
    assert_eq!(first["token_hash"].as_str().unwrap().len(), 12);
    assert_eq!(lines[2]["reason"], "insufficient_scope");
    assert_eq!(lines[4]["reason"], "missing");
    let text = format!("{lines:?}");
    let parts = secret.split('.').skip(1);
    for hidden in ["somebody", "/private", "name="].into_iter().chain(parts) {
        assert!(!text.contains(hidden), "{hidden}");
    }
}

#[test]
fn a_request_whose_client_left_is_logged_as_such() {
    let mut bed = Bed::start(|settings| settings.limits.idle_connection_timeout = SHORT);
    let mut client = bed.connect();
    client.send(get("/hold")).unwrap();
    bed.upstream.seen();
    drop(client);
    bed.until_open(0);
    assert_eq!(
        bed.metric(r#"portcullis_requests_total{method="GET",route="/open/{*rest}",status="499"}"#),
        1
    );
    assert_eq!(bed.log()[0]["status"], 499);
}

#[test]
fn a_trusted_proxy_names_the_request_and_its_client() {
    let ask = b"GET /open/ok HTTP/1.1\r\nHost: gate\r\nX-Request-Id: from-outside\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n\r\n";
    let mut bed = Bed::start(|settings| settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]);
    let mut client = bed.connect();
    client.send(ask).unwrap();
    assert_eq!(client.answer().unwrap().field("x-request-id"), Some("from-outside"));
    assert_eq!(bed.log()[0]["client_address"], "192.0.2.2");
    let mut bed = Bed::start(|_| {});
    let mut client = bed.connect();
    client.send(ask).unwrap();
    assert_ne!(client.answer().unwrap().field("x-request-id"), Some("from-outside"));
    assert_eq!(bed.log()[0]["client_address"], "127.0.0.1");
}
