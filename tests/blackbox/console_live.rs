//! What the console shows operators about requests: why one was rejected, and what the gate is doing now.

use testkit::gate::Gate;
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;
use testkit::visitor::EventStream;

const EXPLAIN: &str = "/console/explain";
const STREAM: &str = "/console/live/stream";
/// A script that a browser would run if it were not escaped.
const SCRIPT: &str = "<script>alert(1)</script>";
/// The most concurrent streams.
const MOST_STREAMS: usize = 100;

/// A gate, its issuer, and its upstream, which responds as long as it is not dropped.
fn scene(more: &str) -> (Gate, Issuer, RawUpstream) {
    let (upstream, issuer) = (RawUpstream::scripted(|exchange| exchange.ok("hello")), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/observed/{*rest}", "mode = \"shadow\"")
        .route("/{*rest}", "")
        .admin()
        .toml(more);
    (Gate::start(&settings), issuer, upstream)
}

/// A further admin token.
fn caller(name: &str, permissions: &str) -> String {
    let secret = secret(name);
    format!("[[admin.tokens]]\nname = \"{name}\"\nsecret = \"{secret}\"\npermissions = [{permissions}]\n")
}

fn secret(name: &str) -> String {
    format!("{name}-of-the-tests-0123456789")
}

/// The name and the data of an event.
#[track_caller]
fn event(stream: &mut EventStream) -> (String, String) {
    stream.event().expect("an event")
}

#[test]
fn a_token_is_explained_and_never_shown_or_logged() {
    let (gate, issuer, _upstream) = scene("");
    let visitor = gate.sign_in(ADMIN_TOKEN);
    let expired = issuer.token().claim("exp", now() - 60).claim("iat", now() - 120).build();
    let forged = format!("{}AAAA", issuer.good().rsplit_once('.').unwrap().0.to_owned() + ".");
    for (token, verdict, first) in [
        (issuer.good(), "would be allowed", "token"),
        (expired, "would be rejected: expired", "expiry"),
        (forged, "would be rejected: bad_signature", "signature"),
    ] {
        let fields = [("token", &*token), ("method", "POST"), ("path", "/a?b=<c>"), ("host", "")];
        let answer = visitor.submit(EXPLAIN, &fields);
        let page = answer.text();
        assert_eq!(answer.status(), 200, "{page}");
        assert!(page.contains(verdict), "{verdict}: {page}");
        let checks: Vec<&str> = page.split("<th scope=\"row\"><code>").skip(1).collect();
        let failed = checks.iter().position(|check| check.contains("✗ failed"));
        if verdict.contains("rejected") {
            assert!(failed == Some(0) && checks[0].starts_with(first), "{first} is not first: {page}");
            assert!(checks.iter().any(|check| check.contains("✓ passed")), "{page}");
        } else {
            assert_eq!(failed, None, "{page}");
        }
        assert!(page.contains("POST /a?b=&lt;c&gt;"), "the request is kept: {page}");
        let signature = token.rsplit('.').next().unwrap();
        let payload = token.split('.').nth(1).unwrap();
        for text in [&page, &gate.log().text()] {
            assert!(!text.contains(payload), "{text}");
            assert!(signature.len() < 8 || !text.contains(signature), "{text}");
        }
        assert!(visitor.page(EXPLAIN).text().find(payload).is_none(), "it is kept nowhere");
    }
}

#[test]
fn a_form_that_cannot_be_judged_comes_back_with_what_is_wrong() {
    let (gate, _issuer, _upstream) = scene("");
    let visitor = gate.sign_in(ADMIN_TOKEN);
    for (token, method, path, problem) in [
        ("", "GET", "/a", "Paste the token here."),
        ("x.y.z", "GET", "a", "A path must begin with"),
        ("x.y.z", "a b", "/a", "This is not a valid HTTP method."),
    ] {
        let answer = visitor
            .submit(EXPLAIN, &[("token", token), ("method", method), ("path", path), ("host", SCRIPT)]);
        let page = answer.text();
        assert_eq!(answer.status(), 422, "{page}");
        assert!(page.contains(problem) && page.contains(token), "{page}");
        assert!(!page.contains(SCRIPT) && page.contains("value=\"&lt;script&gt;"), "{page}");
    }
}

#[test]
fn a_rejected_request_is_found_by_its_id() {
    let (gate, issuer, _upstream) = scene("");
    let visitor = gate.sign_in(ADMIN_TOKEN);
    let expired =
        issuer.token().claim("exp", now() - 60).claim("iat", now() - 120).claim("client_id", SCRIPT).build();
    let id = |target: &str, token: Option<&str>| {
        let request = gate.request("DELETE", target);
        let request = if let Some(token) = token { request.token(token) } else { request };
        request.send().field("x-request-id").unwrap().to_owned()
    };
    let by_id = |id: &str| visitor.page(&format!("{EXPLAIN}?request={id}")).text();
    let page = by_id(&id("/secret/7?access_code=concealed", Some(&expired)));
    for wanted in
        ["expired", "The token has expired", "DELETE /secret/7<", "401", "127.0.0.1", "api.test", "/{*rest}"]
    {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains(SCRIPT), "{page}");
    assert!(!page.contains("concealed") && !page.contains(expired.split('.').nth(1).unwrap()), "{page}");
    let page = by_id(&id(&format!("/{SCRIPT}"), None));
    assert!(page.contains("Rejected") && !page.contains(SCRIPT), "{page}");
    let page = by_id(&id("/observed/7", None));
    assert!(page.contains("in shadow mode") && page.contains("missing"), "{page}");
    let page = by_id(&id("/a", Some(&issuer.good())));
    assert!(
        page.contains("has the id") && page.contains("allowed"),
        "an allowed request is not kept: {page}"
    );
    assert!(!by_id("%3Cscript%3Ealert(1)").contains("<script>alert"));
}

#[test]
fn the_latest_rejected_requests_are_listed_by_reason() {
    let (gate, issuer, _upstream) = scene("");
    let visitor = gate.sign_in(ADMIN_TOKEN);
    for _ in 0..25 {
        gate.get("/missing").send();
    }
    gate.get("/malformed").token("x").send();
    gate.get("/allowed").token(&issuer.good()).send();
    let rows = |query: &str| {
        let page = visitor.page(&format!("{EXPLAIN}{query}")).text();
        page.matches("data-name=\"Method and path\"").count()
    };
    assert_eq!((rows(""), rows("?reason=malformed"), rows("?reason=missing")), (20, 1, 20));
    assert_eq!((rows("?reason=expired"), rows("?reason=%3Cscript%3E")), (0, 0));
    let page = visitor.page(EXPLAIN).text();
    assert!(page.contains("GET /malformed") && !page.contains("/allowed"), "{page}");
}

#[test]
fn pages_show_themselves_to_the_right_permission_only() {
    let (gate, _issuer, _upstream) =
        scene(&(caller("events", "\"events\"") + &caller("config", "\"config\"")));
    let (events, config) = (gate.sign_in(&secret("events")), gate.sign_in(&secret("config")));
    for (visitor, explain, live) in [(&events, 403, 403), (&config, 403, 200)] {
        assert_eq!((visitor.page(EXPLAIN).status(), visitor.page("/console/live").status()), (explain, live));
    }
    let mut stream = events.watch(STREAM);
    assert_eq!((stream.status, event(&mut stream).0.as_str(), stream.event()), (200, "end", None));
    let answer = gate.sign_in(ADMIN_TOKEN).page("/console/live").text();
    for wanted in ["Requests per second", "Latency", "Key sets", "Readiness", "role=\"img\"", "data-live="] {
        assert!(answer.contains(wanted), "{wanted}: {answer}");
    }
    assert!(!answer.contains("style="), "the policy forbids it: {answer}");
}

#[test]
fn a_live_page_follows_the_gate() {
    let (gate, issuer, _upstream) = scene("");
    let mut stream = gate.sign_in(ADMIN_TOKEN).watch(STREAM);
    gate.get("/a").token(&issuer.good()).send();
    // Two samples make a rate; what was counted before the first is not part of it.
    let mut shows = |wanted: &str| {
        for _ in 0..30 {
            gate.get("/a").token("x").send();
            let (name, page) = event(&mut stream);
            assert_eq!(name, "state");
            if page.contains(wanted) {
                return page;
            }
        }
        panic!("{wanted} does not appear");
    };
    let page = shows("<code>malformed</code>");
    assert!(page.contains("Tokens in use</div><div class=\"value\">1<"), "{page}");
    assert!(page.contains(&issuer.name), "{page}");
}

/// Holds docs/configuration.md, Settings: console.enabled
#[test]
fn a_live_page_ends_when_its_visitor_would_not_be_let_in_any_more() {
    let other = secret("another");
    let removed = |toml: String| toml.replace(&secret("config"), &other);
    let narrowed = |toml: String| toml.replace("permissions = [\"config\"]", "permissions = [\"events\"]");
    let disabled = |toml: String| toml + "[console]\nenabled = false\n";
    let changes: [(&dyn Fn(String) -> String, u16); 3] =
        [(&removed, 303), (&narrowed, 403), (&disabled, 404)];
    for (change, status) in changes {
        let (gate, _issuer, _upstream) = scene(&caller("config", "\"config\""));
        let visitor = gate.sign_in(&secret("config"));
        let mut stream = visitor.watch(STREAM);
        assert_eq!(event(&mut stream).0, "state");
        gate.settings.file("portcullis.toml", change(gate.settings.to_toml()));
        gate.signal("HUP");
        gate.wait_for_reloads("ok", 1.0);
        let last = std::iter::from_fn(|| stream.event()).take(10).last().unwrap();
        assert_eq!(last.0, "end");
        assert_eq!(stream.event(), None);
        assert_eq!(visitor.page("/console/live").status(), status);
    }
}

#[test]
fn a_live_page_ends_when_the_gate_drains() {
    let (mut gate, _issuer, _upstream) = scene("");
    let mut stream = gate.sign_in(ADMIN_TOKEN).watch(STREAM);
    assert_eq!(event(&mut stream).0, "state");
    gate.signal("TERM");
    let last = std::iter::from_fn(|| stream.event()).take(100).last().unwrap();
    assert_eq!(last.0, "end");
    gate.stop();
}

/// Holds docs/operations.md, Failure modes: more than a hundred live pages are open
#[test]
fn a_hundred_live_pages_leave_room_for_the_api_and_one_more_is_refused() {
    let (gate, _issuer, _upstream) = scene("");
    let visitor = gate.sign_in(ADMIN_TOKEN);
    let mut streams: Vec<EventStream> = (0..MOST_STREAMS).map(|_| visitor.watch(STREAM)).collect();
    assert!(streams.iter().all(|stream| stream.status == 200));
    assert_eq!(visitor.watch(STREAM).status, 503);
    assert_eq!(visitor.page("/console/live").status(), 200);
    assert_eq!(gate.operate("GET", "/v1/config", None).status(), 200);
    for stream in &mut streams {
        assert_eq!(event(stream).0, "state");
    }
    streams.pop();
    testkit::eventually("a place is free", || (visitor.watch(STREAM).status == 200).then_some(()));
}
