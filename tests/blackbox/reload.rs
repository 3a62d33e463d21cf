//! A new configuration while the gate runs: all or nothing, and no request fails because of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::pki::Authority;
use crate::support::raw_upstream::RawUpstream;
use crate::support::settings::{ADMIN_TOKEN, Settings};
use crate::support::tokens::Issuer;
use crate::support::tools::run;
use crate::support::wire::{Answer, Wire};

fn base(upstream: &RawUpstream, issuer: &Issuer) -> Settings {
    Settings::plaintext().upstream("api", &upstream.url(), "").issuer(issuer).admin()
}

/// A request to the admin listener.
fn admin(gate: &mut Gate, method: &str, path: &str, token: Option<&str>) -> Answer {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: admin\r\n{bearer}Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    Wire::plain(gate.admin).exchange(request).unwrap()
}

#[test]
fn a_new_route_works_after_sighup_after_a_change_on_disk_and_after_a_call() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = base(&upstream, &issuer).route("/one", "");
    let mut gate = Gate::start(&settings);
    let token = issuer.good();
    let status = |gate: &Gate, path: &str| gate.get(path).token(&token).send().status();
    assert_eq!((status(&gate, "/one"), status(&gate, "/two")), (200, 403));

    let settings = settings.route("/two", "");
    settings.write();
    let began = Instant::now();
    eventually("the change on disk is seen", || (status(&gate, "/two") == 200).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(6), "within 2 s, and some patience: {:?}", began.elapsed());

    let settings = settings.route("/three", "");
    settings.write();
    gate.signal("HUP");
    eventually("the signal is obeyed", || (status(&gate, "/three") == 200).then_some(()));

    let settings = settings.route("/four", "");
    settings.write();
    let answer = admin(&mut gate, "POST", "/v1/reload", Some(ADMIN_TOKEN));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(status(&gate, "/four"), 200, "in force when the call is answered");
    assert!(gate.reloads("ok") >= 3.0);
    assert!(gate.reloads("error") < 0.5);
}

#[test]
fn a_bad_configuration_changes_nothing_and_says_everything_that_is_wrong() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = base(&upstream, &issuer).route("/one", "");
    let mut gate = Gate::start(&settings);
    let token = issuer.good();
    let bad = settings.clone().route("/two", "upstream = \"nowhere\"").route("/three", "mode = \"wrong\"");
    bad.write();
    gate.wait_for_reloads("error", 1.0);
    for (path, status) in [("/one", 200), ("/two", 403)] {
        assert_eq!(gate.get(path).token(&token).send().status(), status, "{path}");
    }
    gate.log().wait_for_text("nowhere");

    let answer = admin(&mut gate, "POST", "/v1/reload", Some(ADMIN_TOKEN));
    assert_eq!(answer.status(), 422, "{}", answer.text());
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    let text = answer.text();
    assert!(text.contains("nowhere") && text.contains("mode"), "every problem: {text}");

    for broken in ["this is not TOML", "", "[server]\nunknown_key = 1\n"] {
        let errors = gate.reloads("error");
        gate.settings.file("portcullis.toml", broken);
        gate.signal("HUP");
        gate.wait_for_reloads("error", errors + 1.0);
        assert_eq!(gate.get("/one").token(&token).send().status(), 200);
    }
    assert_eq!(gate.readiness().0, 200, "a bad file does not make a good gate unready");
    let oks = gate.reloads("ok");
    settings.route("/two", "").write();
    gate.signal("HUP");
    gate.wait_for_reloads("ok", oks + 1.0);
    assert_eq!(gate.get("/two").token(&token).send().status(), 200);
}

#[test]
fn a_changed_listen_address_needs_a_restart_and_says_so() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = base(&upstream, &issuer).route("/one", "");
    let gate = Gate::start(&settings);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    settings.clone().server(&format!("listen = [\"127.0.0.1:{port}\"]")).write();
    gate.signal("HUP");
    let line = gate.log().wait_for_text("restart");
    assert!(line.contains("listen"), "{line}");
    assert_eq!(gate.get("/one").token(&issuer.good()).send().status(), 200, "the old address still serves");
}

#[test]
fn requirements_upstreams_identity_and_issuers_change_as_well() {
    let (first, second) = (RawUpstream::start(), RawUpstream::scripted(|exchange| exchange.ok("second")));
    let (issuer, other) = (Issuer::new(), Issuer::named("https://other.example.com/"));
    let settings = base(&first, &issuer).route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    assert_eq!(gate.get("/").token(&token).send().text(), "ok");
    assert_eq!(gate.get("/").token(&other.good()).send().status(), 401);

    let changed = Settings::plaintext()
        .upstream("api", &second.url(), "")
        .issuer_with(&issuer, "leeway = \"10s\"")
        .issuer(&other)
        .route("/{*rest}", "scopes = [\"read:deals\"]")
        .toml("[identity.headers]\nx-user = \"sub\"\n");
    for name in [issuer.slug(), other.slug()] {
        let file = format!("jwks-{name}.json");
        gate.settings.file(&file, std::fs::read(changed.folder().join(&file)).unwrap());
    }
    gate.settings.file("portcullis.toml", changed.to_toml());
    gate.signal("HUP");
    eventually("the second upstream", || {
        (gate.get("/").token(&token).send().text() == "second").then_some(())
    });
    assert_eq!(gate.get("/").token(&other.good()).send().status(), 200);
    assert_eq!(second.last().field("x-user").as_deref(), Some("alice"));
    assert_eq!(gate.get("/").token(&issuer.token().claim("scope", "x").build()).send().status(), 403);
}

/// Requests on connections that are used again, until told to stop: how many were served, and what went wrong.
fn keep_asking(gate: &Gate, token: &str, stop: &AtomicBool) -> (usize, Option<String>) {
    let request = gate.get("/load").token(token).bytes();
    let mut served = 0;
    while !stop.load(Ordering::SeqCst) {
        let mut wire = gate.connect();
        let failure = (0..20).map(|_| wire.exchange(&request)).find(|answer| {
            let good = answer.as_ref().is_ok_and(|answer| answer.status() == 200);
            served += usize::from(good);
            !good
        });
        if let Some(failure) = failure {
            return (served, Some(format!("{failure:?}")));
        }
    }
    (served, None)
}

/// Four clients keep asking while `act` runs.
fn under_load(gate: &Gate, token: &str, act: impl FnOnce()) -> (usize, Vec<String>) {
    let stop = AtomicBool::new(false);
    let results: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| keep_asking(gate, token, &stop))).collect();
        act();
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let served = results.iter().map(|(served, _)| served).sum();
    (served, results.into_iter().filter_map(|(_, failure)| failure).collect())
}

#[test]
fn no_request_fails_because_of_reloads() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::tls()
        .server("workers = 2")
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    let (served, failures) = under_load(&gate, &token, || {
        for n in 0..20 {
            let fresh = settings.authority().server(&["localhost", "api.test", "127.0.0.1"]);
            settings.file("server.key", &fresh.key);
            settings.file("server.pem", &fresh.chain);
            settings
                .clone()
                .route(&format!("/extra-{n}"), "")
                .limits(&format!("headers = {}", 50 + n))
                .write();
            let before = gate.reloads("ok");
            gate.signal("HUP");
            gate.wait_for_reloads("ok", before + 1.0);
        }
    });
    assert!(failures.is_empty(), "{served} served, but {failures:?}");
    assert!(served > 100, "{served} requests");
}

#[test]
fn h2load_sees_no_failure_during_reloads() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::tls()
        .server("workers = 2")
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let (bearer, url) = (format!("authorization: Bearer {}", issuer.good()), gate.url("/load"));
    let done = AtomicBool::new(false);
    let printed = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let printed = run("h2load", &["-n", "4000", "-c", "8", "-m", "4", "-H", &bearer, &url]);
            done.store(true, Ordering::SeqCst);
            printed
        });
        for n in 0..20 {
            if done.load(Ordering::SeqCst) {
                break;
            }
            settings.clone().route(&format!("/extra-{n}"), "").write();
            let before = gate.reloads("ok");
            gate.signal("HUP");
            gate.wait_for_reloads("ok", before + 1.0);
        }
        load.join().unwrap()
    });
    assert!(printed.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{printed}");
    assert!(printed.contains("4000 2xx"), "{printed}");
    assert!(gate.reloads("ok") >= 1.0);
}

#[test]
fn a_long_answer_outlives_a_reload() {
    use crate::support::app::{App, Speaks};

    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings =
        Settings::plaintext().upstream("api", &app.url(), "").issuer(&issuer).route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let mut wire = gate.connect();
    wire.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
    assert_eq!(wire.head().unwrap().status, 200);
    settings.route("/new", "").write();
    gate.signal("HUP");
    gate.wait_for_reloads("ok", 1.0);
    app.emit("after the reload");
    assert_eq!(wire.chunk().unwrap().unwrap(), b"data: after the reload\n\n");
}

#[test]
fn the_admin_listener_lets_in_only_who_may() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = base(&upstream, &issuer).route("/one", "").toml(
        "[[admin.tokens]]\nname = \"watcher\"\nsecret = \"watcher-secret-0123456789-0123456789\"\npermissions = [\"events\"]\n",
    );
    let mut gate = Gate::start(&settings);
    for (token, status) in [
        (None, 401),
        (Some("wrong"), 401),
        (Some(&issuer.good()[..]), 401),
        (Some("watcher-secret-0123456789-0123456789"), 403),
        (Some(ADMIN_TOKEN), 200),
    ] {
        for (method, path) in [("POST", "/v1/reload"), ("GET", "/v1/config")] {
            let answer = admin(&mut gate, method, path, token);
            assert_eq!(answer.status(), status, "{method} {path} with {token:?}: {}", answer.text());
            if status != 200 {
                assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{method} {path}");
            }
            if status == 401 {
                assert!(answer.field("www-authenticate").unwrap().starts_with("Bearer"), "{method} {path}");
            }
        }
    }
}

#[test]
fn the_admin_listener_can_speak_tls_and_take_its_secret_from_a_file() {
    let (upstream, issuer, authority) = (RawUpstream::start(), Issuer::new(), Authority::new());
    let identity = authority.server(&["localhost"]);
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).toml(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[admin.tls]\ncertificate = \"admin.pem\"\nprivate_key = \"admin.key\"\n\
         [[admin.tokens]]\nname = \"ops\"\nsecret = { file = \"admin.secret\" }\npermissions = [\"config\"]\n",
    );
    settings.file("admin.pem", &identity.chain);
    settings.file("admin.key", &identity.key);
    settings.file("admin.secret", format!("{ADMIN_TOKEN}\n"));
    let gate = Gate::start(&settings);
    let address = gate.admin;
    let mut wire = Wire::tls(address, "localhost", authority.client_config(&["http/1.1"], None)).unwrap();
    let request =
        format!("GET /v1/config HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
    assert_eq!(wire.exchange(request).unwrap().status(), 200);
    let mut plain = Wire::plain(address);
    drop(plain.send("GET /v1/config HTTP/1.1\r\nHost: admin\r\n\r\n"));
    assert!(!plain.rest().unwrap_or_default().starts_with(b"HTTP/"), "no clear text");
}

#[test]
fn the_effective_configuration_can_be_read_without_its_secrets() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = base(&upstream, &issuer).route("/one", "scopes = [\"x\"]");
    let mut gate = Gate::start(&settings);
    let answer = admin(&mut gate, "GET", "/v1/config", Some(ADMIN_TOKEN));
    assert_eq!(answer.status(), 200);
    let text = answer.text();
    assert!(!text.contains(ADMIN_TOKEN), "{text}");
    let config: Value = answer.json();
    assert_eq!(config["issuers"][0]["issuer"], issuer.name.as_str(), "{config}");
    assert_eq!(config["server"]["limits"]["headers"], 100, "defaults are shown as well: {config}");
}
