//! The test helpers themselves, against third-party clients.

use serde_json::json;

use testkit::app::{App, Speaks};
use testkit::documents::{absent, unpromised};
use testkit::frames::{self, END_STREAM, End, Frames};
use testkit::issuer::{Answer, KeyServer};
use testkit::metrics::Scrape;
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::tokens::{Issuer, twin};
use testkit::tools::{OpenIdProvider, run};
use testkit::wire::Wire;

#[test]
fn the_recording_upstream_keeps_the_exact_bytes() {
    let upstream = RawUpstream::start();
    let request =
        b"POST /a?b HTTP/1.1\r\nHost:  x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
    let answer = Wire::plain(upstream.address).exchange(request).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    let seen = upstream.last();
    assert_eq!([seen.head.clone(), seen.wire_body.clone()].concat(), request);
    assert_eq!((seen.body.as_slice(), seen.trailers.as_str()), (&b"abc"[..], "T: 1\r\n"));
}

#[test]
fn curl_reaches_the_upstreams_in_every_protocol() {
    let raw = RawUpstream::start();
    assert_eq!(run("curl", &["-sS", "--data", "abc", &raw.url()]), "ok");
    assert_eq!(raw.last().body, b"abc");

    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.certificate_pem()).unwrap();
    let h2 = App::start(Speaks::H2Tls(authority.server(&["localhost"])));
    let version = ["-sS", "-w", " %{http_version}", "--cacert", ca.to_str().unwrap()];
    assert_eq!(run("curl", &[&version[..], &[&h2.url()]].concat()), "hello 2");

    let h1 = App::start(Speaks::Http1);
    assert_eq!(run("curl", &["-sS", "--data", "abc", &format!("{}/echo", h1.url())]), "abc");
    let h2c = App::start(Speaks::H2c);
    let url = h2c.url().replace("h2c://", "http://");
    assert_eq!(run("curl", &["-sS", "--http2-prior-knowledge", "-w", " %{http_version}", &url]), "hello 2");
    assert_eq!(h2c.last().version, http::Version::HTTP_2);
}

#[test]
fn the_key_server_serves_keys_and_misbehaves_on_request() {
    let server = KeyServer::start(json!({"keys": []}));
    assert_eq!(run("curl", &["-sS", &server.jwks_url()]), r#"{"keys":[]}"#);
    let metadata =
        run("curl", &["-sS", &format!("{}/.well-known/openid-configuration", server.issuer_url())]);
    assert!(metadata.contains(&server.jwks_url()), "{metadata}");
    server.set(Answer::Raw(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec()));
    assert_eq!(run("curl", &["-sS", "-w", "%{http_code}", &server.jwks_url()]), "500");
    assert_eq!((server.fetches(), server.discoveries()), (2, 1));
}

#[test]
fn the_openid_provider_issues_and_rotates() {
    let mut provider = OpenIdProvider::start("ES256");
    let (first, kid) = (provider.token(), provider.rotate(true));
    assert_ne!(first, provider.token());
    assert!(run("curl", &["-sS", &format!("{}/jwks", provider.issuer)]).contains(&kid));
}

#[test]
fn frames_by_hand_are_understood_by_a_real_server() {
    let app = App::start(Speaks::H2c);
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":path", "/status/403"), (":authority", "api.test")];
    let long = "v".repeat(5000);
    for (extra, end) in
        [("plain", End::Status(403)), (long.as_str(), End::Status(403)), ("CR\rLF\n", End::GoAway(1))]
    {
        let mut connection = Frames::over(Wire::plain(app.address));
        connection.send(frames::headers(1, END_STREAM, &[&fields[..], &[("x-extra", extra)]].concat()));
        assert_eq!(connection.end_of(1), end, "{extra:?}");
    }
    let mut connection = Frames::over(Wire::plain(app.address));
    connection.send(frames::frame(frames::kind::PING, 0, 0, &[0; 7]));
    assert!(matches!(connection.end_of(1), End::GoAway(_)), "a PING of seven bytes");
}

#[test]
fn a_huffman_coded_status_is_read() {
    // RFC 7541 appendix C.6.1: "302" is 6402.
    assert_eq!(frames::literal_status(&[0x82, 0x64, 0x02]), 302);
    assert_eq!(frames::literal_status(&[0x03, b'4', b'0', b'1']), 401);
}

#[test]
fn the_parser_reads_labels_with_commas_and_quotes() {
    let page = "# TYPE a counter\na{x=\"1,\\\"2\\\"\",y=\"z\"} 3\na{x=\"q\",y=\"z\"} 4\nb 0.5\n";
    let scrape = Scrape::parse(page);
    assert_eq!(scrape.types["a"], "counter");
    assert!((scrape.sum("a", &[("y", "z")]) - 7.0).abs() < 1e-9);
    assert!((scrape.sum("a", &[("x", "1,\"2\"")]) - 3.0).abs() < 1e-9);
    assert!((scrape.sum("b", &[]) - 0.5).abs() < 1e-9);
}

#[test]
fn metrics_that_are_not_promised_or_have_other_labels_are_found() {
    let page = "# TYPE portcullis_request_duration_seconds histogram\n\
                portcullis_request_duration_seconds_bucket{route=\"/\",le=\"1\"} 1\n\
                portcullis_request_duration_seconds_sum{route=\"/\"} 1\nprocess_open_fds 9\n\
                portcullis_state_reads_total 1\n";
    let found = |more: &str| unpromised(&Scrape::parse(&format!("{page}{more}\n")));
    assert_eq!(found(""), [].into());
    assert_eq!(
        found("portcullis_new_total{route=\"/\"} 1"),
        ["portcullis_new_total is not in the table of docs/monitoring.md".to_owned()].into()
    );
    assert_eq!(
        found("portcullis_connections{address=\"a\"} 1"),
        ["portcullis_connections has the labels {\"address\"}, not {\"listener\"}".to_owned()].into()
    );
    let absent = absent(&Scrape::parse(page));
    assert!(absent.contains("portcullis_requests_total") && !absent.contains("process_*"), "{absent:?}");
    assert!(!absent.contains("portcullis_request_duration_seconds"), "{absent:?}");
}

#[test]
fn the_twin_of_the_twin_is_the_token() {
    let issuer = Issuer::new();
    let token = issuer.good();
    assert_ne!(twin(&token), token);
    assert_eq!(twin(&twin(&token)), token);
}
