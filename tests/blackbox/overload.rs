//! The limits on requests in flight: exactly that many pass, the next is shed at once, and every end makes room.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex};

use testkit::app::{empty, full};
use testkit::frames::{self, END_STREAM, Frames};
use testkit::gate::Gate;
use testkit::h2_client::{self, H2Answer, H2Client};
use testkit::raw_upstream::{Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::{Answer, Wire};
use testkit::{PATIENCE, block_on, eventually};

/// The limit that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Gate,
    Upstream,
}

impl Limit {
    const BOTH: [Self; 2] = [Self::Gate, Self::Upstream];

    /// A gate's settings with this limit.
    fn of(self, most: usize, base: &Settings, url: &str, issuer: &Issuer) -> Settings {
        let (all, one) = match self {
            Self::Gate => (most, 0),
            Self::Upstream => (0, most),
        };
        base.clone()
            .limits(&format!("requests = {all}"))
            .upstream("api", url, &format!("max_requests = {one}"))
            .issuer(issuer)
            .route("/{*rest}", "")
            .route("/anonymous/{*rest}", "anonymous = true")
            .admin()
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Gate => "The gate has reached a limit; try again later",
            Self::Upstream => "The upstream has reached its request limit; try again later",
        }
    }

    /// The label for shed requests: the limit of all requests is checked before the route is known.
    const fn route(self) -> &'static str {
        match self {
            Self::Gate => "none",
            Self::Upstream => "/{*rest}",
        }
    }
}

/// Holds requests at the upstream until the test releases their target.
#[derive(Clone, Default)]
struct Hold(Arc<(Mutex<HashSet<String>>, Condvar)>);

impl Hold {
    fn wait(&self, target: &str) {
        let (released, changed) = &*self.0;
        let held = |released: &mut HashSet<String>| !released.contains(target);
        drop(changed.wait_timeout_while(released.lock().unwrap(), PATIENCE, held).unwrap());
    }

    fn release(&self, target: &str) {
        self.0.0.lock().unwrap().insert(target.to_owned());
        self.0.1.notify_all();
    }
}

/// An upstream that holds `…/held/…` before its response and `…/stream/…` inside it, and continues after an upgrade.
fn holding() -> (RawUpstream, Hold) {
    let hold = Hold::default();
    let held = hold.clone();
    let upstream = RawUpstream::scripted(move |exchange| {
        let target = exchange.request.target();
        if exchange.request.field("upgrade").is_some() {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            return exchange.wait_for_close();
        }
        if exchange.read_body().is_err() {
            return Next::Close;
        }
        if target.contains("/held/") {
            held.wait(&target);
        }
        if target.contains("/stream/") {
            exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            held.wait(&target);
            return exchange.send("4\r\nlast\r\n0\r\n\r\n");
        }
        exchange.ok("done")
    });
    (upstream, hold)
}

/// Sends a request on a connection of its own and waits until it has reached the upstream.
fn hold_one(gate: &Gate, upstream: &RawUpstream, target: &str, token: &str) -> Wire {
    let (mut wire, before) = (gate.connect(), upstream.count());
    wire.send(gate.get(target).token(token).bytes()).unwrap();
    upstream.wait_for(before + 1);
    wire
}

#[track_caller]
fn assert_shed(answer: &Answer, limit: Limit) {
    assert_eq!(answer.status(), 503, "{}", answer.text());
    let mut names: Vec<&str> = answer.head.fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected = ["cache-control", "content-length", "content-type", "date", "retry-after", "x-request-id"];
    assert_eq!(names, expected);
    assert_eq!(answer.field("retry-after"), Some("1"));
    let id = answer.field("x-request-id").unwrap();
    let body = format!(
        r#"{{"error":"temporarily_unavailable","error_description":"{}","request_id":"{id}"}}"#,
        limit.description()
    );
    assert_eq!(answer.field("content-length"), Some(body.len().to_string().as_str()));
    assert!(answer.text() == body || answer.body.is_empty(), "{}", answer.text());
}

/// How many requests were shed, with this label.
fn shed(gate: &Gate, route: &str) -> f64 {
    let labels = [("decision", "unavailable"), ("reason", "overloaded"), ("route", route)];
    gate.metrics().sum("portcullis_decisions_total", &labels)
}

fn status(gate: &Gate, path: &str, token: &str) -> u16 {
    gate.get(path).token(token).send().status()
}

#[test]
fn exactly_the_limit_passes_and_the_next_gets_503_on_a_connection_that_goes_on() {
    for limit in Limit::BOTH {
        let ((upstream, hold), issuer) = (holding(), Issuer::new());
        let base = Settings::plaintext().server("workers = 2");
        let gate = Gate::start(&limit.of(2, &base, &upstream.url(), &issuer));
        let token = issuer.good();
        let mut first = hold_one(&gate, &upstream, "/held/1", &token);
        let mut second = hold_one(&gate, &upstream, "/held/2", &token);

        let mut third = gate.connect();
        let rows = [
            gate.get("/a").token(&token),
            gate.request("POST", "/b").token(&token).body("a small body"),
            gate.request("HEAD", "/c").token(&token),
            // Who asks is not known yet.
            gate.get("/d"),
            gate.get("/e").token("not-a-token"),
        ];
        for request in &rows {
            let answer = third.exchange(request.bytes()).unwrap();
            assert_shed(&answer, limit);
            let record = gate.record_of(answer.field("x-request-id").unwrap());
            assert_eq!(
                (record["decision"].as_str(), record["reason"].as_str(), record["status"].as_u64()),
                (Some("unavailable"), Some("overloaded"), Some(503)),
                "{record}"
            );
        }
        assert_eq!(shed(&gate, limit.route()), 5.0, "{limit:?}");
        assert_eq!(upstream.count(), 2, "what is shed never reaches the upstream");

        hold.release("/held/1");
        assert_eq!(first.answer().unwrap().status(), 200);
        let request = gate.get("/a").token(&token).bytes();
        assert_eq!(third.exchange(&request).unwrap().status(), 200, "{limit:?}: one has ended");
        assert_eq!(first.exchange(&request).unwrap().status(), 200, "{limit:?}");
        hold.release("/held/2");
        assert_eq!(second.answer().unwrap().status(), 200);
        assert_eq!(third.exchange(gate.get("/d").bytes()).unwrap().status(), 401, "{limit:?}");
        assert_eq!(shed(&gate, limit.route()), 5.0);
    }
}

/// Holds docs/operations.md, Failure modes: too many requests, or an upstream that is too slow for them
/// Holds docs/configuration.md, Settings: server.limits.requests
/// Holds docs/configuration.md, Settings: upstreams[].max_requests
/// Holds docs/concepts.md, What a request meets: keys or shared state unavailable, or a limit reached
#[test]
fn of_many_at_once_exactly_the_limit_passes() {
    const LIMIT: usize = 7;
    const CLIENTS: usize = 40;
    for limit in Limit::BOTH {
        let ((upstream, hold), issuer) = (holding(), Issuer::new());
        let base = Settings::plaintext().server("workers = 2");
        let gate = Gate::start(&limit.of(LIMIT, &base, &upstream.url(), &issuer));
        let token = issuer.good();
        let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| gate.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(gate.get(&format!("/held/{number}")).token(&token).bytes()).unwrap();
        }
        upstream.wait_for(LIMIT);
        gate.wait_for_metric("all others are shed", |metrics| {
            let shed = metrics.decisions()["unavailable/overloaded"];
            (shed == f64::from(u32::try_from(CLIENTS - LIMIT).unwrap())).then_some(())
        });
        (0..CLIENTS).for_each(|number| hold.release(&format!("/held/{number}")));
        let answers: Vec<u16> = clients.iter_mut().map(|client| client.answer().unwrap().status()).collect();
        let passed = answers.iter().filter(|status| **status == 200).count();
        assert_eq!((passed, upstream.count()), (LIMIT, LIMIT), "{limit:?}: {answers:?}");
        assert!(answers.iter().all(|status| matches!(status, 200 | 503)), "{answers:?}");
    }
}

/// Waits for a condition without blocking the other tasks.
async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    testkit::eventually_async(what, || probe().then_some(())).await;
}

#[test]
fn over_http_2_only_the_stream_is_shed_and_grpc_is_answered_in_its_own_form() {
    for limit in Limit::BOTH {
        let ((upstream, hold), issuer) = (holding(), Issuer::new());
        let gate = Gate::start(&limit.of(2, &Settings::tls(), &upstream.url(), &issuer));
        let token = issuer.good();
        block_on(async {
            let mut client = H2Client::connect(&gate).await;
            let spawned = |target: &'static str| {
                let (mut client, request) =
                    (client.clone(), h2_client::request("GET", target, &token, empty()));
                tokio::spawn(async move { client.exchange(request).await.unwrap().status() })
            };
            let (first, second) = (spawned("/held/1"), spawned("/held/2"));
            until("two are at the upstream", || upstream.count() == 2).await;

            let field = |answer: &H2Answer, name: &str| {
                let values: Vec<_> = answer
                    .head
                    .headers
                    .get_all(name)
                    .iter()
                    .map(|v| v.to_str().unwrap().to_owned())
                    .collect();
                values.join("|")
            };
            let request = h2_client::request("POST", "/a", &token, full(vec![b'x'; 200_000]));
            let answer = client.exchange(request).await.unwrap();
            assert_eq!((answer.status(), field(&answer, "retry-after").as_str()), (503, "1"));
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["error"], "temporarily_unavailable");
            assert_eq!(body["error_description"], limit.description());

            let mut call = h2_client::request("POST", "/svc/Method", &token, full("message"));
            call.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
            let answer = client.exchange(call).await.unwrap();
            assert_eq!((answer.status(), answer.body.len()), (200, 0));
            assert_eq!(field(&answer, "grpc-status"), "14", "UNAVAILABLE");
            assert_eq!(field(&answer, "grpc-message"), limit.description());
            assert_eq!(upstream.count(), 2);

            hold.release("/held/1");
            assert_eq!(first.await.unwrap(), 200);
            let request = || h2_client::request("GET", "/a", &token, empty());
            assert_eq!(client.exchange(request()).await.unwrap().status(), 200, "{limit:?}");
            hold.release("/held/2");
            assert_eq!(second.await.unwrap(), 200);
        });
        assert_eq!(shed(&gate, limit.route()), 2.0);
    }
}

/// Holds docs/configuration.md, Settings: server.limits.requests
/// Holds docs/configuration.md, Settings: upstreams[].max_requests
#[test]
fn a_reload_changes_the_limit_and_counts_go_on() {
    for limit in Limit::BOTH {
        let ((upstream, hold), issuer) = (holding(), Issuer::new());
        let base = Settings::plaintext().server("workers = 2");
        // The same server at another address is another upstream of the same name.
        let renamed = format!("http://localhost:{}", upstream.address.port());
        let gate = Gate::start(&limit.of(1, &base, &upstream.url(), &issuer));
        let token = issuer.good();
        let reload = |most: usize, url: &str| {
            limit.of(most, &base, url, &issuer).write();
            let answer = gate.operate("POST", "/v1/reload", None);
            assert_eq!(answer.status(), 200, "{}", answer.text());
        };
        let mut first = hold_one(&gate, &upstream, "/held/1", &token);
        assert_eq!(status(&gate, "/a", &token), 503);
        reload(2, &upstream.url());
        let mut second = hold_one(&gate, &upstream, "/held/2", &token);
        assert_eq!(status(&gate, "/a", &token), 503, "{limit:?}: one began before the reload");
        reload(2, &renamed);
        assert_eq!(status(&gate, "/a", &token), 503, "{limit:?}: the address is no other upstream");
        reload(0, &renamed);
        assert_eq!(status(&gate, "/a", &token), 200, "{limit:?}: no limit");
        reload(1, &upstream.url());
        assert_eq!(status(&gate, "/a", &token), 503);
        hold.release("/held/2");
        assert_eq!(second.answer().unwrap().status(), 200);
        assert_eq!(status(&gate, "/a", &token), 503, "{limit:?}: one of two is left");
        hold.release("/held/1");
        assert_eq!(first.answer().unwrap().status(), 200);
        // Nothing was given back twice: there is room for one, not for two.
        let _third = hold_one(&gate, &upstream, "/held/3", &token);
        assert_eq!(status(&gate, "/a", &token), 503, "{limit:?}");
    }
}

/// The head of a request over HTTP/2.
fn h2_head(method: &str, target: &str, token: &str, flags: u8) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let fields = [
        (":method", method),
        (":scheme", "https"),
        (":path", target),
        (":authority", "api.test"),
        ("authorization", bearer.as_str()),
    ];
    frames::headers(1, flags, &fields)
}

/// Reads up to the first data of stream 1.
fn read_to_data(client: &mut Frames) {
    while client.read().unwrap().kind != frames::kind::DATA {}
}

#[test]
fn a_client_that_vanishes_gives_its_place_back() {
    /// `CANCEL`.
    const RESET: [u8; 4] = [0, 0, 0, 8];
    let http1 = ["before the response", "inside its body", "inside the response"];
    let http2 = [
        "a reset before the response",
        "a reset inside the response",
        "a reset inside the body",
        "a connection lost",
    ];
    for limit in Limit::BOTH {
        let ((upstream, _hold), issuer) = (holding(), Issuer::new());
        let gate = Gate::start(&limit.of(1, &Settings::tls(), &upstream.url(), &issuer));
        let token = issuer.good();
        for (number, row) in http1.iter().chain(&http2).enumerate() {
            let (held, stream) = (format!("/held/{number}"), format!("/stream/{number}"));
            let before = upstream.count();
            let reset = frames::frame(frames::kind::RST_STREAM, 0, 1, &RESET);
            let full = || assert_eq!(status(&gate, "/a", &token), 503, "{limit:?}: {row}");
            match *row {
                "before the response" => {
                    let _client = hold_one(&gate, &upstream, &held, &token);
                    full();
                }
                "inside its body" => {
                    let mut client = gate.connect();
                    let head = gate.request("POST", &held).token(&token).field("Content-Length", "100");
                    client.send([head.bytes(), b"a part".to_vec()].concat()).unwrap();
                    upstream.wait_for(before + 1);
                    full();
                }
                "inside the response" => {
                    let mut client = hold_one(&gate, &upstream, &stream, &token);
                    assert_eq!(client.head().unwrap().status, 200);
                    assert_eq!(client.chunk().unwrap().unwrap(), b"first");
                    full();
                }
                "a reset before the response" | "a connection lost" => {
                    let mut client = Frames::connect(&gate);
                    client.send(h2_head("GET", &held, &token, END_STREAM));
                    upstream.wait_for(before + 1);
                    full();
                    if row.contains("reset") {
                        client.send(reset);
                        // The connection is still there while the place is free again.
                        eventually("a place", || (status(&gate, "/a", &token) == 200).then_some(()));
                    }
                }
                "a reset inside the response" => {
                    let mut client = Frames::connect(&gate);
                    client.send(h2_head("GET", &stream, &token, END_STREAM));
                    read_to_data(&mut client);
                    full();
                    client.send(reset);
                    eventually("a place", || (status(&gate, "/a", &token) == 200).then_some(()));
                }
                "a reset inside the body" => {
                    let mut client = Frames::connect(&gate);
                    client.send(h2_head("POST", &held, &token, 0));
                    client.send(frames::frame(frames::kind::DATA, 0, 1, b"a part"));
                    upstream.wait_for(before + 1);
                    full();
                    client.send(reset);
                    eventually("a place", || (status(&gate, "/a", &token) == 200).then_some(()));
                }
                other => unreachable!("{other}"),
            }
            eventually(row, || (status(&gate, "/a", &token) == 200).then_some(()));
        }
        let _one = hold_one(&gate, &upstream, "/held/last", &token);
        assert_eq!(status(&gate, "/a", &token), 503, "{limit:?}: the count is neither above nor below");
    }
}

#[test]
fn a_websocket_counts_until_it_ends() {
    for limit in Limit::BOTH {
        let ((upstream, _hold), issuer) = (holding(), Issuer::new());
        let gate = Gate::start(&limit.of(1, &Settings::plaintext(), &upstream.url(), &issuer));
        let token = issuer.good();
        let upgrade = gate
            .get("/socket")
            .token(&token)
            .field("Connection", "Upgrade")
            .field("Upgrade", "websocket")
            .field("Sec-WebSocket-Version", "13")
            .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .bytes();
        let mut socket = gate.connect();
        assert_eq!(socket.exchange(&upgrade).unwrap().status(), 101);
        let mut other = gate.connect();
        let answer = other.exchange(&upgrade).unwrap();
        assert_shed(&answer, limit);
        drop(socket);
        eventually("the tunnel has ended", || (status(&gate, "/a", &token) == 200).then_some(()));
        assert_eq!(
            other.exchange(&upgrade).unwrap().status(),
            101,
            "the connection that was refused goes on"
        );
    }
}

#[test]
fn a_request_that_is_shed_is_no_use_of_its_token() {
    for limit in Limit::BOTH {
        let ((upstream, hold), issuer) = (holding(), Issuer::new());
        let settings = limit
            .of(1, &Settings::plaintext(), &upstream.url(), &issuer)
            .toml("[sessions]\nidle_timeout = \"2s\"");
        let gate = Gate::start(&settings);
        let token = gate.use_in_time("/a", || issuer.good());
        // Nobody's token, which cannot go idle.
        let mut holder = gate.connect();
        holder.send(gate.get("/anonymous/held/1").bytes()).unwrap();
        upstream.wait_for(2);
        let mut shed = 0;
        eventually("the token goes idle while its requests are shed", || {
            assert_eq!(status(&gate, "/a", &token), 503);
            shed += 1;
            (gate.would_say(&token) == "idle").then_some(())
        });
        assert!(shed > 2, "{limit:?}: it was presented again and again");
        hold.release("/anonymous/held/1");
        assert_eq!(holder.answer().unwrap().status(), 200);
        assert_eq!(status(&gate, "/a", &token), 401, "{limit:?}");
        let usage = gate.list("/v1/usage");
        let forwarded: u64 = usage.iter().filter_map(|client| client["requests"].as_u64()).sum();
        assert!(forwarded <= 1, "{limit:?}: {usage:?}");
    }
}

/// Holds docs/operations.md, Failure modes: too many requests, or an upstream that is too slow for them
#[test]
fn one_upstream_at_its_limit_leaves_the_others_and_every_refusal_as_they_are() {
    let ((full, hold), other, issuer) = (holding(), RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &full.url(), "max_requests = 1")
        .upstream("other", &other.url(), "max_requests = 1")
        .issuer(&issuer)
        .route("/held/{*rest}", "")
        .route("/api", "methods = [\"GET\"]")
        .route("/shadow", "scopes = [\"never\"]\nmode = \"shadow\"")
        .route("/anonymous", "anonymous = true")
        .route("/other", "upstream = \"other\"")
        .route("/secret", "upstream = \"other\"\nscopes = [\"never\"]");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    let mut held = hold_one(&gate, &full, "/held/1", &token);
    let rows = [
        ("a good token", gate.get("/api").token(&token), 503, 200),
        ("no token", gate.get("/api"), 503, 401),
        ("a bad token", gate.get("/api").token("x"), 503, 401),
        ("a route that is observed", gate.get("/shadow").token(&token), 503, 200),
        ("a route for everybody", gate.get("/anonymous"), 503, 200),
        ("another upstream", gate.get("/other").token(&token), 200, 200),
        ("a missing scope, another upstream", gate.get("/secret").token(&token), 403, 403),
        ("no route", gate.get("/nowhere").token(&token), 403, 403),
        ("no route, no token", gate.get("/nowhere"), 401, 401),
        ("no route for the method", gate.request("POST", "/api").token(&token), 403, 403),
        ("an ambiguous target", gate.get("/api/%2f").token(&token), 400, 400),
    ];
    for (name, request, meanwhile, _) in &rows {
        assert_eq!(request.send().status(), *meanwhile, "{name}");
    }
    let expecting = gate.request("POST", "/held/2").token(&token).field("Expect", "100-continue").body("x");
    let answer = gate.connect().exchange(expecting.bytes().strip_suffix(b"x").unwrap()).unwrap();
    assert_eq!((answer.status(), answer.interim.len()), (503, 0), "the body is not asked for");
    assert_eq!(answer.field("connection"), Some("close"), "as with any refusal: the body may still come");
    hold.release("/held/1");
    assert_eq!(held.answer().unwrap().status(), 200);
    for (name, request, _, afterwards) in &rows {
        assert_eq!(request.send().status(), *afterwards, "{name}");
    }
}
