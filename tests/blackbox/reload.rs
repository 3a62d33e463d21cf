//! Reloading the configuration while the gate runs: all or nothing, and no request fails because of it.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use testkit::eventually;
use testkit::gate::{Gate, check};
use testkit::issuer::{self, KeyServer, Source};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;
use testkit::tools::run;
use testkit::wire::{Answer, Wire};

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
    eventually("the change on disk is seen", || (status(&gate, "/two") == 200).then_some(()));

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

/// Holds docs/operations.md, Failure modes: a bad configuration at start
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
    let port = testkit::ports::reserved().port();
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
#[test]
fn the_series_of_an_issuer_leave_with_it_and_a_refused_reload_leaves_none() {
    let upstream = RawUpstream::start();
    let (issuer, other) = (Issuer::new(), Issuer::named("https://other.example.com/"));
    let both = base(&upstream, &issuer).issuer(&other).route("/{*rest}", "");
    let gate = Gate::start(&both);
    for issuer in [&issuer, &other] {
        assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    }
    let series =
        |name: &str| gate.telemetry("/metrics").text().lines().filter(|line| line.contains(name)).count();
    let before = series(&issuer.name);
    assert!(before > 3 && series(&other.name) == before, "{before}");
    let reload = |settings: &Settings| {
        gate.settings.file("portcullis.toml", settings.to_toml());
        gate.operate("POST", "/v1/reload", None).status()
    };
    let one = base(&upstream, &issuer).route("/{*rest}", "");
    assert_eq!(reload(&one), 200);
    assert_eq!((series(&issuer.name), series(&other.name)), (before, 0));
    // Its keys cannot be loaded.
    let third = Issuer::named("https://third.example.com/");
    let source = Source::Url(nowhere());
    assert_eq!(reload(&base(&upstream, &issuer).issuer_from(&third, &source, "").route("/{*rest}", "")), 422);
    assert_eq!((series(&issuer.name), series(&third.name)), (before, 0));
    assert_eq!(reload(&both), 200);
    assert_eq!(gate.get("/").token(&other.good()).send().status(), 200);
    assert_eq!((series(&issuer.name), series(&other.name)), (before, before));
}

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

/// Four clients keep sending requests while `act` runs.
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
    use testkit::app::{App, Speaks};

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

/// Holds docs/configuration.md, Settings: admin.listen, [[admin.tokens]]
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

/// A URL at which nobody listens.
fn nowhere() -> String {
    let port = testkit::ports::reserved().port();
    format!("http://127.0.0.1:{port}/jwks")
}

#[test]
fn keys_are_good_only_for_the_source_they_came_from() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let server = KeyServer::start(issuer.jwks());
    let silent = KeyServer::start(issuer.jwks());
    silent.set(issuer::Answer::Silence);
    let useless = KeyServer::start(serde_json::json!({"keys": []}));
    let home = format!("{:?}", server.jwks_url());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_from(&issuer, &Source::Url(server.jwks_url()), "")
        .route("/{*rest}", "")
        .admin()
        .toml("[state]\npath = \"state.db\"\non_empty = \"trust\"\n");
    let mut gate = Gate::start(&settings);
    let token = issuer.good();
    let status = |gate: &Gate| gate.get("/").token(&token).send().status();
    assert_eq!(status(&gate), 200);
    let moved = |url: &str| settings.to_toml().replace(&home, &format!("{url:?}"));
    for (name, url) in [
        ("nobody listens", nowhere()),
        ("no answer", silent.jwks_url()),
        ("no keys", useless.jwks_url()),
        ("no scheme for it", nowhere().replace("http:", "https:")),
    ] {
        settings.file("portcullis.toml", moved(&url));
        let answer = admin(&mut gate, "POST", "/v1/reload", Some(ADMIN_TOKEN));
        assert_eq!(answer.status(), 422, "{name}: {}", answer.text());
        assert!(answer.text().contains("keys could not be loaded"), "{name}: {}", answer.text());
        assert_eq!(status(&gate), 200, "{name}: the old configuration stays");
        let keys = gate.metrics().sum("portcullis_keys", &[("issuer", &issuer.name)]);
        assert_eq!(keys, 1.0, "{name}: the gauge is that of the keys in force");
    }
    gate.kill();

    // A restart takes the file as it is now. The keys that were kept are those of another source.
    let launch = || {
        let mut elsewhere = Gate::launch_with(&settings, |_| settings_file(&settings, &moved(&nowhere())));
        elsewhere.log().wait_for_text("no new keys");
        let seen = (status(&elsewhere), elsewhere.readiness().0);
        elsewhere.kill();
        seen
    };
    assert_eq!(launch(), (503, 503), "nothing is judged by the keys of another source");
    server.set(issuer::Answer::HangUp);
    let gate = Gate::start(&settings);
    assert_eq!(status(&gate), 200, "the keys that were kept of this source");
}

fn settings_file(settings: &Settings, text: &str) {
    settings.file("portcullis.toml", text);
}

#[test]
fn other_roots_for_the_source_of_keys_are_used_from_the_next_fetch_on() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = KeyServer::with_tls(issuer.jwks(), &ours.server(&["localhost"]));
    let often = "ca = \"roots.pem\"\nrefresh_interval = \"200ms\"\nrefresh_cooldown = \"100ms\"";
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_from(&issuer, &Source::Url(server.named_jwks_url()), often)
        .route("/{*rest}", "")
        .admin();
    settings.file("roots.pem", ours.certificate_pem());
    let gate = Gate::start(&settings);
    let failed = || gate.metrics().sum("portcullis_keys_refresh_total", &[("result", "error")]);
    assert_eq!(failed(), 0.0);
    settings.file("roots.pem", theirs.certificate_pem());
    eventually("the server is not trusted any more", || (failed() > 0.0).then_some(()));
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200, "for max_stale");
}

/// Whether this address responds to plaintext HTTP.
fn speaks_clear_text(address: std::net::SocketAddr) -> bool {
    let mut plain = Wire::plain(address);
    drop(plain.send("GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"));
    plain.rest().unwrap_or_default().starts_with(b"HTTP/")
}

#[test]
fn a_listener_keeps_speaking_tls_or_clear_text_until_a_restart() {
    const ADMIN_TLS: &str = "[admin.tls]\ncertificate = \"admin.pem\"\nprivate_key = \"admin.key\"\n";
    let (upstream, issuer, authority) = (RawUpstream::start(), Issuer::new(), Authority::new());
    let identity = authority.server(&["localhost"]);
    let settings = Settings::tls().server("listen = [\"0.0.0.0:0\"]\nallow_plaintext = true").toml(&format!(
        "[admin]\nlisten = \"0.0.0.0:0\"\n{ADMIN_TLS}\
         [[admin.tokens]]\nname = \"ops\"\nsecret = \"{ADMIN_TOKEN}\"\npermissions = [\"config\"]\n"
    ));
    let settings = settings.guarding(&upstream.url(), &issuer);
    settings.file("admin.pem", &identity.chain);
    settings.file("admin.key", &identity.key);
    let secure = settings.to_toml();
    let without_tls = |text: &str| {
        let tls = text.find("[server.tls]").unwrap();
        let end = tls + text[tls..].find("\n\n").unwrap();
        format!("{}{}", &text[..tls], &text[end..]).replace(ADMIN_TLS, "")
    };
    let plain = without_tls(&secure).replace("0.0.0.0:0", "127.0.0.1:0");
    let halves = [
        ("[server.tls] alone", without_tls(&secure).replace("[admin]\n", &format!("{ADMIN_TLS}[admin]\n"))),
        ("both, and the addresses", plain.clone()),
    ];
    let gate = Gate::start(&settings);
    let here = |address: std::net::SocketAddr| ([127, 0, 0, 1], address.port()).into();
    let (public, operators) = (here(gate.public), here(gate.admin));
    let request =
        format!("GET /v1/config HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
    let trusted = authority.client_config(&["http/1.1"], None);
    let shown = || {
        let mut wire = Wire::tls(operators, "localhost", trusted.clone()).unwrap();
        wire.exchange(&request).unwrap().json()
    };
    let first = shown();
    for (name, text) in halves {
        let reloads = gate.reloads("ok");
        settings.file("portcullis.toml", &text);
        gate.signal("HUP");
        gate.wait_for_reloads("ok", reloads + 1.0);
        assert!(!speaks_clear_text(public), "{name}: the public listener");
        assert!(!speaks_clear_text(operators), "{name}: the admin listener");
        let now = shown();
        for at in ["/server/listen", "/server/tls", "/server/allow_plaintext", "/admin/listen", "/admin/tls"]
        {
            assert_eq!(now.pointer(at), first.pointer(at), "{name}: what is shown is in force: {at}");
        }
        assert_eq!(
            gate.connect().exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap().status(),
            200
        );
    }
    let line = gate.log().wait_for_text("[server.tls]");
    assert!(line.contains("restart"), "{line}");
    // The files of the TLS that stays are looked after as before.
    let fresh = settings.authority().server(&["localhost"]);
    settings.file("server.key", &fresh.key);
    settings.file("server.pem", &fresh.chain);
    eventually("the new certificate is served", || {
        let config = std::sync::Arc::new(settings.authority().client_config(&["http/1.1"], None));
        let (_, handshake) = Wire::tls_shared(public, "localhost", &config).unwrap();
        (handshake.certificate == fresh.chain_der()[0].to_vec()).then_some(())
    });
    drop(gate);

    // And the other way round: what speaks clear text does so until the restart, on the address it has.
    settings.file("portcullis.toml", &plain);
    let gate = Gate::launch_with(&settings, |_| settings_file(&settings, &plain));
    let reloads = gate.reloads("ok");
    settings.file("portcullis.toml", &secure);
    gate.signal("HUP");
    gate.wait_for_reloads("ok", reloads + 1.0);
    assert!(speaks_clear_text(gate.public) && speaks_clear_text(gate.admin));
    assert!(gate.public.ip().is_loopback() && gate.admin.ip().is_loopback());
}

#[test]
fn a_refused_reload_leaves_sessions_of_tls_to_be_resumed() {
    let (upstream, issuer, clients) = (RawUpstream::start(), Issuer::new(), Authority::new());
    let settings =
        Settings::tls().server_tls("client_ca = \"clients.pem\"").guarding(&upstream.url(), &issuer);
    settings.file("clients.pem", clients.certificate_pem());
    let gate = Gate::start(&settings);
    let config =
        std::sync::Arc::new(settings.authority().client_config(&["http/1.1"], Some(&clients.client("a"))));
    let resumed = || {
        let (mut wire, handshake) = Wire::tls_shared(gate.public, "localhost", &config).unwrap();
        assert_eq!(wire.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap().status(), 200);
        handshake.resumed
    };
    assert!(!resumed());
    assert!(resumed());
    settings.file("other.pem", Authority::new().certificate_pem());
    let other = Issuer::named("https://other.example.com/");
    let refused = settings.clone().server_tls("client_ca = \"other.pem\"").issuer_from(
        &other,
        &Source::Url(nowhere()),
        "",
    );
    assert_eq!(check(&refused).code, 0);
    gate.signal("HUP");
    gate.wait_for_reloads("error", 1.0);
    assert!(resumed(), "nothing of the refused configuration was touched");
}
