//! The OAuth endpoints with every way in which a request can arrive: framings, versions, slow and
//! incomplete bodies, odd targets.

use http::Request;
use serde_json::{Value, json};

use crate::authority::stage::{App, Stage};
use testkit::app;
use testkit::block_on;
use testkit::h2_client::H2Client;

const FORM: &str = "application/x-www-form-urlencoded";

fn head(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: api.test\r\nContent-Type: {FORM}\r\n{more}\r\n")
}

/// A complete token request.
fn request(app: &App) -> String {
    let body = app.form("");
    head("POST /oauth/token", &format!("Content-Length: {}\r\n", body.len())) + &body
}

#[test]
fn a_body_may_come_in_chunks_and_after_a_promise() {
    let stage = Stage::start();
    let app = stage.robot();
    let body = app.form("");
    let (first, second) = body.split_at(20);
    let chunks = format!(
        "{:x}\r\n{first}\r\n{:x};x=y\r\n{second}\r\n0\r\nX-Trailer: ignored\r\n\r\n",
        first.len(),
        second.len()
    );
    let mut wire = stage.gate.connect();
    let chunked = head("POST /oauth/token", "Transfer-Encoding: chunked\r\n") + &chunks;
    let answer = wire.exchange(&chunked).unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());

    let promised =
        head("POST /oauth/token", &format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len()));
    wire.send(promised).unwrap();
    assert_eq!(wire.head().unwrap().status, 100, "the client is told to go on");
    wire.send(&body).unwrap();
    assert_eq!(wire.answer().unwrap().status(), 200);

    let answer = wire.exchange(request(&app)).unwrap();
    assert_eq!(answer.status(), 200, "the connection goes on: {}", answer.text());

    // More than may be, without a length that says so.
    let flood =
        head("POST /oauth/token", "Transfer-Encoding: chunked\r\n") + "18000\r\n" + &"a".repeat(0x18000);
    let mut wire = stage.gate.connect();
    let answer = wire.exchange(flood).unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (413, Some("close")), "{}", answer.text());
}

#[test]
fn requests_behind_a_refused_one_are_answered_or_never_read() {
    let stage = Stage::start();
    let app = stage.robot();
    let good = request(&app);
    let bad_body = "grant_type=password";
    let bad = head("POST /oauth/token", &format!("Content-Length: {}\r\n", bad_body.len())) + bad_body;
    let get = head("GET /oauth/token", "");
    let foreign = head("POST /oauth/revoke", "Content-Length: 2\r\n") + "{}";
    let mut wire = stage.gate.connect();
    wire.send([bad.as_str(), &get, &good, &foreign, &good].concat()).unwrap();
    for status in [400, 405, 200, 401, 200] {
        assert_eq!(wire.answer().unwrap().status(), status);
    }

    // After a body that was not read to its end nothing on the connection can be trusted.
    let large = format!("x={}", "a".repeat(100 * 1024));
    let length = large.len();
    let hidden = head("POST /oauth/token", &format!("Content-Length: {length}\r\n")) + &large + &good;
    let mut wire = stage.gate.connect();
    let sent = wire.send(hidden);
    let answer = wire.answer().unwrap_or_else(|error| panic!("{error} after {sent:?}"));
    assert_eq!((answer.status(), answer.field("connection")), (413, Some("close")));
    assert!(wire.is_closed(), "what came behind is not answered");
}

#[test]
fn a_body_that_does_not_come_is_given_up_and_holds_nobody_up() {
    let stage = Stage::start();
    let app = stage.robot();
    let mut slow = stage.gate.connect();
    slow.send(head("POST /oauth/token", "Content-Length: 1000\r\n") + "grant_type=client_").unwrap();
    let mut broken = stage.gate.connect();
    broken.send(head("POST /oauth/token", "Content-Length: 1000\r\n") + "grant_type=client_").unwrap();
    drop(broken);
    assert_eq!(
        stage.gate.connect().exchange(request(&app)).unwrap().status(),
        200,
        "others are served meanwhile"
    );
    let answer = slow.answer().unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")), "{}", answer.text());
    assert!(slow.is_closed());

    let mut garbled = stage.gate.connect();
    let answer =
        garbled.exchange(head("POST /oauth/token", "Transfer-Encoding: chunked\r\n") + "zz\r\n").unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")), "{}", answer.text());
}

#[test]
fn http2_gets_the_same_answers() {
    let stage = Stage::start();
    let app = stage.robot();
    block_on(async {
        let mut client = H2Client::connect(&stage.gate).await;
        let mut post = async |path: &str, body: String| {
            let request = Request::post(format!("https://api.test{path}")).header("content-type", FORM);
            client.exchange(request.body(app::full(body)).unwrap()).await.unwrap()
        };
        let answer = post("/oauth/token", app.form("")).await;
        assert_eq!(answer.status(), 200);
        let token = serde_json::from_slice::<Value>(&answer.body).unwrap()["access_token"].clone();
        let about =
            format!("token={}&client_id={}&client_secret={}", token.as_str().unwrap(), app.id, app.secret);
        for active in [true, false] {
            let answer = post("/oauth/introspect", about.clone()).await;
            assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap()["active"], json!(active));
            assert_eq!(post("/oauth/revoke", about.clone()).await.status(), 200);
        }
        for (body, status, error) in [
            ("grant_type=x".to_owned(), 400, "unsupported_grant_type"),
            ("a=1&a=2".to_owned(), 400, "invalid_request"),
            ("grant_type=client_credentials".to_owned(), 401, "invalid_client"),
            ("a".repeat(100 * 1024), 413, "request_too_large"),
        ] {
            let answer = post("/oauth/token", body).await;
            assert_eq!(answer.status(), status);
            assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap()["error"], error);
            assert_eq!(answer.head.headers["cache-control"], "no-store");
            assert!(answer.head.headers.contains_key("x-request-id"));
            assert!(!answer.head.headers.contains_key("connection"), "there is no such field in HTTP/2");
        }
        assert_eq!(post("/oauth/token", app.form("")).await.status(), 200, "the connection goes on");
    });
}

/// Holds docs/configuration.md, Settings: authority.token_path, .token_lifetime
#[test]
fn the_paths_are_the_authoritys_and_no_others_are() {
    let stage = Stage::planned(|plan| {
        plan.authority("token_path = \"/OAuth/Token\"")
            // The authority's paths win over routes.
            .toml("[[routes]]\npath = \"/oauth/{*rest}\"\nupstream = \"api\"\nanonymous = true\n")
            .toml("[[routes]]\npath = \"/.well-known/{*rest}\"\nupstream = \"api\"\nanonymous = true\n")
    });
    let app = stage.robot();
    let form = app.form("");
    for path in [
        "/OAuth/Token",
        "/oauth/token",
        "/OAUTH/TOKEN",
        "/oauth/%74oken",
        "/%6fAuth/Token",
        "https://api.test/oauth/token",
    ] {
        let answer = stage.post(path, &form);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        assert!(answer.json()["access_token"].is_string(), "{path}");
    }
    assert!(stage.upstream.seen().is_empty());
    for path in ["/oauth/token/", "/oauth/Revoke", "/oauth/token/x", "/oauth", "/.well-known/JWKS.json"] {
        let answer = stage.post(path, "nothing=secret");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{path} is the upstream's");
    }
    for path in ["/oauth//token", "/oauth/./token", "/x/../oauth/token", "/oauth%2ftoken", "/oauth/token%00"]
    {
        assert_eq!(stage.post(path, &form).status(), 400, "{path}");
    }
    let metadata = stage.gate.get("/.well-known/oauth-authorization-server").send().json();
    assert_eq!(metadata["token_endpoint"], format!("{}/OAuth/Token", stage.issuer()));
    // No token, or a useless one, is asked of those who come for a token.
    let request = stage.gate.request("POST", "/oauth/token").field("Content-Type", FORM);
    assert_eq!(request.body(&form).send().status(), 200);
    let seen: Vec<String> = stage.upstream.seen().iter().map(testkit::raw_upstream::Seen::text).collect();
    assert!(seen.iter().all(|text| !text.contains(&app.secret)));
}

#[test]
fn secrets_and_tokens_stay_out_of_the_log_and_the_metrics() {
    let mut stage =
        Stage::planned(|plan| plan.authority("failures_per_client = 1000\nfailures_per_address = 1000"));
    // Long enough to stand in no random text.
    let owner = "somebody-of-this-test";
    stage.user(owner, &[]);
    let app = stage.credential(&json!({"name": "Robot", "owner": owner, "scopes": ["read:deals"]}));
    let token = stage.token(&app);
    let wrong = "a-wrong-secret-of-this-test";
    for path in ["/oauth/token", "/oauth/revoke", "/oauth/introspect"] {
        for secret in [app.secret.as_str(), wrong] {
            let form = format!(
                "grant_type=client_credentials&token={token}&client_id={}&client_secret={secret}",
                app.id
            );
            for target in [path, &format!("{path}?client_secret={secret}&token={token}")] {
                let status = stage.post(target, &form).status();
                assert!(matches!(status, 200 | 400 | 401), "{target}: {status}");
            }
        }
    }
    assert_eq!(stage.api("/deals/7", &token), 401, "it was revoked");
    let metrics = stage.gate.telemetry("/metrics").text();
    stage.gate.signal("TERM");
    assert_eq!(stage.gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
    stage.gate.log().wait_for_end();
    let log = stage.gate.log().text();
    assert!(
        log.contains("/oauth/token") && metrics.contains("/oauth/token"),
        "the requests are there: {log}"
    );
    let signature = token.rsplit('.').next().unwrap();
    for secret in [app.secret.as_str(), wrong, signature, owner] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret} in\n{log}\n{metrics}");
    }
}
