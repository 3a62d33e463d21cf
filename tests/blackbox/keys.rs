//! Keys: fetched before the gate is ready, refreshed in the background, usable during an outage, and
//! rotated by a real issuer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::eventually;
use testkit::gate::{Gate, check, field};
use testkit::issuer::{Answer, KeyServer, Source};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer};
use testkit::tools::OpenIdProvider;

struct Scene {
    _upstream: RawUpstream,
    issuer: Issuer,
    server: KeyServer,
    gate: Gate,
}

/// A gate whose issuer's keys come from a server, with these lines in the issuer's table.
fn scene(lines: &str) -> Scene {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let server = KeyServer::start(issuer.jwks());
    let settings = settings(&upstream, &issuer, &Source::Url(server.jwks_url()), lines);
    let gate = Gate::start(&settings);
    Scene { _upstream: upstream, issuer, server, gate }
}

fn settings(upstream: &RawUpstream, issuer: &Issuer, source: &Source, lines: &str) -> Settings {
    Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_from(issuer, source, lines)
        .route("/{*rest}", "")
}

fn jwks(signers: &[&Signer]) -> Value {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()})
}

impl Scene {
    fn status(&self, token: &str) -> u16 {
        self.gate.get("/").token(token).send().status()
    }
}

#[test]
fn keys_are_there_before_the_gate_is_ready() {
    let Scene { gate, server, issuer, _upstream } = scene("");
    assert_eq!(server.fetches(), 1);
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    let metrics = gate.metrics();
    let labels = [("issuer", issuer.name.as_str())];
    assert!((metrics.sum("portcullis_keys", &labels) - 1.0).abs() < 1e-9);
    assert!(metrics.sum("portcullis_keys_age_seconds", &labels) < 60.0);
    assert!((metrics.sum("portcullis_keys_refresh_total", &[("result", "ok")]) - 1.0).abs() < 1e-9);
}

#[test]
fn a_new_key_is_fetched_when_its_first_token_arrives() {
    let scene = scene("refresh_cooldown = \"100ms\"");
    let new = Signer::new("ES256", "key-2");
    scene.server.set_keys(jwks(&[&scene.issuer.signers[0], &new]));
    let token = scene.issuer.token_by(&new).build();
    eventually("the cooldown of the first fetch is over and the token passes", || {
        (scene.status(&token) == 200).then_some(())
    });
    assert_eq!(scene.status(&scene.issuer.good()), 200, "the old key is still published");
}

/// Holds docs/operations.md, Failure modes: no key verifies a token (an unknown kid, or a new key under an old one)
#[test]
fn a_new_key_that_no_new_name_announces_is_fetched_when_its_first_token_arrives() {
    let (same, other) = (("ES256", "key-1"), ("EdDSA", "key-1"));
    for ((alg, kid), names_it) in [(same, true), (same, false), (other, true), (other, false)] {
        // By the interval alone it would take five minutes.
        let scene = scene("refresh_cooldown = \"100ms\"");
        let old = scene.issuer.good();
        assert_eq!(scene.status(&old), 200);
        let new = Signer::new(alg, kid);
        scene.server.set_keys(jwks(&[&new]));
        let token = scene.issuer.token_by(&new);
        let token = if names_it { token.build() } else { token.headless("kid").build() };
        eventually(&format!("{alg}, kid {names_it}: the token passes"), || {
            (scene.status(&token) == 200).then_some(())
        });
        assert_eq!(scene.status(&old), 401, "{alg}, kid {names_it}: the old key is withdrawn");
    }
}

#[test]
fn a_token_that_failed_before_its_key_was_published_passes_afterwards() {
    // Under a kid that has another key by then, so that its signature is found wrong, and remembered.
    let scene = scene("refresh_interval = \"300ms\"\nrefresh_cooldown = \"100ms\"");
    let new = Signer::new("ES256", "key-1");
    let early = scene.issuer.token_by(&new).build();
    for _ in 0..5 {
        let (_, decision) = scene.gate.decision(|| assert_eq!(scene.status(&early), 401));
        assert_eq!(decision, "deny/bad_signature");
    }
    scene.server.set_keys(jwks(&[&new]));
    eventually("its key is there and it passes", || (scene.status(&early) == 200).then_some(()));
    scene.server.set_keys(scene.issuer.jwks());
    eventually("its key is withdrawn and it fails", || (scene.status(&early) == 401).then_some(()));
    scene.server.set_keys(jwks(&[&new]));
    eventually("its key is back and it passes again", || (scene.status(&early) == 200).then_some(()));
}

#[test]
fn forgers_cause_one_fetch_per_cooldown_and_do_not_hide_a_rotation() {
    let scene = scene("refresh_cooldown = \"1s\"");
    let forger = Signer::new("ES256", "key-1");
    let (forged, stop) = (scene.issuer.token_by(&forger).build(), AtomicBool::new(false));
    let (began, before) = (Instant::now(), scene.server.fetches());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(scene.status(&forged), 401);
                }
            });
        }
        let stop = Stop(&stop);
        for rotation in 0..3 {
            let new = Signer::new("ES256", "key-1");
            scene.server.set_keys(jwks(&[&new]));
            let token = scene.issuer.token_by(&new).build();
            eventually(&format!("rotation {rotation} is noticed"), || {
                (scene.status(&token) == 200).then_some(())
            });
        }
        drop(stop);
    });
    let (fetches, seconds) = (scene.server.fetches() - before, began.elapsed().as_secs() as usize);
    assert!(fetches >= 3 && fetches <= seconds + 1, "{fetches} fetches in {seconds} s");
}

/// Stops the threads of a test, even if it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_request_with_a_new_key_waits_for_the_fetch() {
    let scene = scene("refresh_cooldown = \"1ms\"");
    let new = Signer::new("ES256", "key-2");
    scene.server.set_keys(jwks(&[&new]));
    testkit::let_pass(Duration::from_millis(20)); // the cooldown of the first fetch
    assert_eq!(scene.status(&scene.issuer.token_by(&new).build()), 200, "the very first request passes");
}

/// Holds docs/operations.md, Failure modes: no key verifies a token (an unknown kid, or a new key under an old one)
#[test]
fn a_flood_of_unknown_kids_costs_the_issuer_one_fetch() {
    let scene = scene("refresh_cooldown = \"30s\"");
    let stranger = Signer::new("ES256", "stranger");
    let attempt = |worker: usize| {
        let kids = (0..25).map(|n| format!("kid-{worker}-{n}"));
        kids.filter(|kid| {
            let token = scene.issuer.token_by(&stranger).head("kid", kid.as_str()).build();
            scene.status(&token) == 401
        })
        .count()
    };
    let refused: usize = std::thread::scope(|scope| {
        let attempt = &attempt;
        let workers: Vec<_> = (0..8).map(|worker| scope.spawn(move || attempt(worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(refused, 200);
    assert!(scene.server.fetches() <= 2, "{} fetches", scene.server.fetches());
    assert_eq!(scene.status(&scene.issuer.good()), 200);
}

#[test]
fn requests_that_wait_for_a_slow_issuer_share_one_fetch_and_wait_no_longer_than_they_must() {
    let scene = scene("refresh_cooldown = \"1ms\"");
    scene.server.set(Answer::Silence);
    let stranger = Signer::new("ES256", "stranger");
    let before = scene.server.fetches();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let status = scene.status(&scene.issuer.token_by(&stranger).build());
                assert!(matches!(status, 401 | 503), "{status}");
            });
        }
        // Those whose key is known do not wait.
        assert_eq!(scene.status(&scene.issuer.good()), 200);
    });
    assert!(scene.server.fetches() - before <= 3, "{} fetches", scene.server.fetches() - before);
}

#[test]
fn a_withdrawn_key_stops_working_within_the_refresh_interval() {
    let scene = scene("refresh_interval = \"300ms\"\nrefresh_cooldown = \"100ms\"");
    let old = scene.issuer.good();
    assert_eq!(scene.status(&old), 200);
    let new = Signer::new("ES256", "key-2");
    scene.server.set_keys(jwks(&[&new]));
    eventually("the withdrawn key is refused, although its proof was cached", || {
        (scene.status(&old) == 401).then_some(())
    });
    assert_eq!(scene.status(&scene.issuer.token_by(&new).build()), 200);
}

#[test]
fn a_key_replaced_under_its_name_is_the_new_one() {
    let scene = scene("refresh_interval = \"300ms\"\nrefresh_cooldown = \"100ms\"");
    let old = scene.issuer.good();
    assert_eq!(scene.status(&old), 200);
    let new = Signer::new("ES256", "key-1");
    scene.server.set_keys(jwks(&[&new]));
    let token = scene.issuer.token_by(&new).build();
    eventually("the new key", || (scene.status(&token) == 200).then_some(()));
    assert_eq!(scene.status(&old), 401);
}

/// Holds docs/operations.md, Failure modes: an issuer goes away later
#[test]
fn the_last_good_keys_serve_through_anything_the_issuer_answers() {
    let scene = scene("refresh_interval = \"150ms\"\nrefresh_cooldown = \"50ms\"");
    let ok =
        |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let other = jwks(&[&Signer::new("ES256", "evil")]).to_string();
    let many: Vec<Value> =
        (0..1001).map(|n| json!({"kty": "oct", "k": "AAAA", "kid": n.to_string()})).collect();
    let rows: Vec<(&str, Answer)> = vec![
        ("hangs up", Answer::HangUp),
        ("500", Answer::Raw(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ("404", Answer::Raw(b"HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ("no set", Answer::Keys(json!({}))),
        ("an empty set", Answer::Keys(json!({"keys": []}))),
        ("a set that is no list", Answer::Keys(json!({"keys": {}}))),
        ("only unusable keys", Answer::Keys(json!({"keys": [{"kty": "x"}, {"kty": "EC"}, 7]}))),
        ("no JSON", Answer::Raw(ok("<html>login</html>"))),
        ("half a JSON", Answer::Raw(ok("{\"keys\": ["))),
        ("nothing", Answer::Raw(ok(""))),
        ("garbage", Answer::Raw(b"\0\xff\0".to_vec())),
        (
            "a short answer",
            Answer::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{other}").into_bytes()),
        ),
        (
            "a redirect",
            Answer::Raw(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ),
        (
            "more than 1 MiB",
            Answer::Raw(ok(&format!("{{\"pad\":\"{}\",{}", "x".repeat(1024 * 1024), &other[1..]))),
        ),
        ("more than 1,000 keys", Answer::Keys(json!({"keys": many}))),
        (
            "201 with keys",
            Answer::Raw(
                format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{other}", other.len())
                    .into_bytes(),
            ),
        ),
    ];
    for (name, answer) in rows {
        let errors =
            |scene: &Scene| scene.gate.metrics().sum("portcullis_keys_refresh_total", &[("result", "error")]);
        let before = errors(&scene);
        scene.server.set(answer);
        eventually(&format!("{name}: a fetch fails"), || (errors(&scene) > before).then_some(()));
        assert_eq!(scene.status(&scene.issuer.good()), 200, "{name}");
        let labels = [("issuer", scene.issuer.name.as_str())];
        assert!((scene.gate.metrics().sum("portcullis_keys", &labels) - 1.0).abs() < 1e-9, "{name}");
        assert_eq!(scene.gate.readiness().0, 200, "{name}");
    }
}

/// Holds docs/operations.md, Failure modes: an issuer goes away later
/// Holds docs/configuration.md, Settings: issuers[].max_stale
#[test]
fn keys_that_are_too_old_serve_no_longer_until_the_issuer_is_back() {
    let scene = scene("refresh_interval = \"200ms\"\nrefresh_cooldown = \"50ms\"\nmax_stale = \"1s\"");
    assert_eq!(scene.status(&scene.issuer.good()), 200);
    scene.server.set(Answer::HangUp);
    eventually("the keys are too old", || (scene.status(&scene.issuer.good()) == 503).then_some(()));
    let (status, body) = scene.gate.readiness();
    let component = &body["components"][format!("keys:{}", scene.issuer.name)];
    assert_eq!((status, body["ready"].as_bool()), (503, Some(false)), "{body}");
    assert!(!component.is_null(), "{body}");
    scene.server.set_keys(scene.issuer.jwks());
    eventually("the keys are back", || (scene.status(&scene.issuer.good()) == 200).then_some(()));
    scene.gate.wait_until_ready();
}

/// Holds docs/operations.md, Failure modes: an issuer is unreachable at start
#[test]
fn the_gate_starts_without_its_issuer_and_comes_up_by_itself() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let server = KeyServer::start(issuer.jwks());
    server.set(Answer::HangUp);
    let settings =
        settings(&upstream, &issuer, &Source::Url(server.jwks_url()), "refresh_cooldown = \"100ms\"");
    let gate = Gate::launch(&settings.route("/open", "anonymous = true"));
    let (status, body) = gate.readiness();
    assert_eq!((status, body["ready"].as_bool()), (503, Some(false)), "{body}");
    assert!(!body["components"][format!("keys:{}", issuer.name)].is_null(), "{body}");
    assert_eq!(gate.telemetry("/live").status(), 200);
    let refused = gate.get("/").token(&issuer.good()).send();
    assert_eq!(refused.status(), 503);
    let record = gate.record_of(refused.field("x-request-id").unwrap());
    assert_eq!(field(&record, "reason"), Some("keys_unavailable"), "{record}");
    assert_eq!(upstream.count(), 0);
    assert_eq!(gate.get("/open").send().status(), 200, "an anonymous route works");
    server.set_keys(issuer.jwks());
    gate.wait_until_ready();
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
}

/// Holds docs/configuration.md, Settings: issuers[].jwks_url, .jwks_file, .discovery, .secret, .authority, .kubernetes
#[test]
fn an_issuer_is_discovered_from_its_metadata() {
    let upstream = RawUpstream::start();
    let mut issuer = Issuer::new();
    let server = KeyServer::start(issuer.jwks());
    issuer.name = server.issuer_url();
    let gate = Gate::start(&settings(&upstream, &issuer, &Source::Discovery, ""));
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    assert!(server.discoveries() >= 1);

    // Metadata that name another issuer are somebody else's (RFC 8414 §3.3).
    let mut other = Issuer::new();
    other.name = format!("{}/tenant", server.issuer_url());
    let gate = Gate::launch(&settings(&upstream, &other, &Source::Discovery, ""));
    assert_eq!(gate.get("/").token(&other.good()).send().status(), 503);
    assert_eq!(gate.readiness().0, 503);
}

#[test]
fn an_issuer_behind_a_private_authority_is_verified() {
    let (upstream, issuer, authority) = (RawUpstream::start(), Issuer::new(), Authority::new());
    let server = KeyServer::with_tls(issuer.jwks(), &authority.server(&["localhost"]));
    let source = Source::Url(server.named_jwks_url());
    let trusting = settings(&upstream, &issuer, &source, "ca = \"issuer-ca.pem\"");
    trusting.file("issuer-ca.pem", authority.certificate_pem());
    let gate = Gate::start(&trusting);
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);

    let wary = settings(&upstream, &issuer, &source, "ca = \"issuer-ca.pem\"");
    wary.file("issuer-ca.pem", Authority::new().certificate_pem());
    let gate = Gate::launch(&wary);
    gate.wait_for_metric("a failed fetch", |scrape| {
        (scrape.sum("portcullis_keys_refresh_total", &[("result", "error")]) >= 1.0).then_some(())
    });
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 503);
}

#[test]
fn keys_are_not_fetched_in_clear_text_from_afar() {
    let issuer = Issuer::new();
    let with = |lines: &str| {
        Settings::plaintext()
            .upstream("api", "http://127.0.0.1:1", "")
            .issuer_from(&issuer, &Source::Url("http://idp.example.com/jwks".to_owned()), lines)
            .route("/{*rest}", "")
    };
    let outcome = check(&with(""));
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("jwks_url"), "{outcome:?}");
    assert_eq!(check(&with("insecure_http = true")).code, 0);
}

/// Holds docs/configuration.md, Settings: issuers[].jwks_url, .jwks_file, .discovery, .secret, .authority, .kubernetes
#[test]
fn a_changed_key_file_is_read_again() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let old = issuer.good();
    assert_eq!(gate.get("/").token(&old).send().status(), 200);
    let new = Signer::new("ES256", "key-2");
    gate.settings.file(&format!("jwks-{}.json", issuer.slug()), jwks(&[&new]).to_string());
    let token = issuer.token_by(&new).build();
    eventually("the new key", || (gate.get("/").token(&token).send().status() == 200).then_some(()));
    assert_eq!(gate.get("/").token(&old).send().status(), 401);
}

/// Holds docs/configuration.md, Settings: issuers[].issuer, .audiences
#[test]
fn issuers_are_judged_apart() {
    let upstream = RawUpstream::start();
    let (one, mut two) =
        (Issuer::named("https://one.example.com/"), Issuer::named("https://two.example.com/"));
    two.audience = "https://two-api.example.com".to_owned();
    let server = KeyServer::start(two.jwks());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&one, "max_lifetime = \"30m\"")
        .issuer_from(&two, &Source::Url(server.jwks_url()), "token_types = [\"JWT\"]\nrequired_claims = []")
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let status = |token: &str| gate.get("/").token(token).send().status();
    let short = || one.token().claim("exp", testkit::now() + 60);
    assert_eq!(status(&short().build()), 200);
    assert_eq!(status(&one.good()), 401, "an hour is too long for the first");
    assert_eq!(status(&two.good()), 401, "at+jwt is no type of the second");
    assert_eq!(status(&two.token().head("typ", "JWT").without("sub").build()), 200);
    assert_eq!(
        status(&short().claim("aud", two.audience.as_str()).build()),
        401,
        "the audience of the other"
    );
    assert_eq!(status(&short().claim("iss", two.name.as_str()).build()), 401, "the name of the other");
    // An outage of one does not touch the other.
    server.set(Answer::HangUp);
    assert_eq!(status(&short().build()), 200);
}

#[test]
fn a_real_openid_provider_is_followed_through_its_rotations() {
    let upstream = RawUpstream::start();
    for alg in ["ES256", "RS256", "EdDSA"] {
        let mut provider = OpenIdProvider::start(alg);
        let issuer = Issuer::named(&provider.issuer);
        let lines = "refresh_cooldown = \"100ms\"\nrefresh_interval = \"1s\"";
        let gate = Gate::start(&settings(&upstream, &issuer, &Source::Discovery, lines));
        let status = |token: &str| gate.get("/").token(token).send().status();
        let first = provider.token();
        assert_eq!(status(&first), 200, "{alg}");
        assert_eq!(upstream.last().field("x-auth-client").as_deref(), Some("app"));

        provider.rotate(true);
        let second = provider.token();
        eventually("the new key is fetched", || (status(&second) == 200).then_some(()));
        assert_eq!(status(&first), 200, "{alg}: the old key is still published");

        provider.rotate(false);
        let third = provider.token();
        eventually("the newest key is fetched", || (status(&third) == 200).then_some(()));
        eventually("the withdrawn keys are refused", || {
            (status(&first) == 401 && status(&second) == 401).then_some(())
        });
    }
}
