//! TLS: versions, protocols, client certificates, resumption, and certificates that change while the gate runs.

use std::sync::Arc;

use rustls::{ClientConfig, ProtocolVersion};
use serde_json::json;

use testkit::eventually;
use testkit::gate::{Gate, check, path_text};
use testkit::pki::{Authority, Identity};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::run;
use testkit::wire::{Answer, Handshake, Wire};

struct Scene {
    _upstream: RawUpstream,
    issuer: Issuer,
    gate: Gate,
}

fn scene(settings: Settings) -> Scene {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&settings.guarding(&upstream.url(), &issuer));
    Scene { _upstream: upstream, issuer, gate }
}

impl Scene {
    fn client(&self) -> ClientConfig {
        self.gate.settings.authority().client_config(&["http/1.1"], None)
    }

    fn with(&self, identity: &Identity) -> ClientConfig {
        self.gate.settings.authority().client_config(&["http/1.1"], Some(identity))
    }

    /// Connects and sends a request; returns the handshake and the response.
    fn exchange(&self, config: ClientConfig, token: &str) -> std::io::Result<(Handshake, Answer)> {
        self.exchange_shared(&Arc::new(config), token)
    }

    fn exchange_shared(
        &self,
        config: &Arc<ClientConfig>,
        token: &str,
    ) -> std::io::Result<(Handshake, Answer)> {
        let (mut wire, handshake) = Wire::tls_shared(self.gate.public, "localhost", config)?;
        let answer = wire.exchange(self.gate.get("/").token(token).bytes())?;
        Ok((handshake, answer))
    }
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let scene = scene(Settings::tls());
    let bearer = format!("Authorization: Bearer {}", scene.issuer.good());
    for version in ["1.2", "1.3"] {
        let arguments = ["--tlsv1.2", "--tls-max", version, "-H", &bearer, "-w", " %{http_code}"];
        assert_eq!(scene.gate.curl("/", &arguments), "ok 200", "TLS {version}");
    }
    let port = format!("127.0.0.1:{}", scene.gate.public.port());
    for old in ["-tls1", "-tls1_1"] {
        let outcome = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &port, old, "-cipher", "ALL:@SECLEVEL=0"])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        assert!(!outcome.status.success() || text.contains("Cipher is (NONE)"), "{old}: {text}");
    }
    assert_eq!(
        scene.exchange(scene.client(), &scene.issuer.good()).unwrap().0.version,
        ProtocolVersion::TLSv1_3
    );
}

#[test]
fn the_lowest_version_can_be_raised() {
    let scene = scene(Settings::tls().server_tls("min_version = \"1.3\""));
    let old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_root_certificates(scene.gate.settings.authority().roots())
        .with_no_client_auth();
    assert!(scene.exchange(old, "x").is_err());
    assert_eq!(scene.exchange(scene.client(), &scene.issuer.good()).unwrap().1.status(), 200);
}

#[test]
fn the_protocol_is_chosen_by_alpn() {
    let scene = scene(Settings::tls());
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"][..], Some("h2")),
        (&["http/1.1"][..], Some("http/1.1")),
        (&[][..], None),
    ] {
        let config = Arc::new(scene.gate.settings.authority().client_config(offered, None));
        let (mut wire, handshake) = Wire::tls_shared(scene.gate.public, "localhost", &config).unwrap();
        assert_eq!(handshake.alpn.as_deref(), chosen, "{offered:?}");
        if chosen != Some("h2") {
            let answer = wire.exchange(scene.gate.get("/").token(&scene.issuer.good()).bytes()).unwrap();
            assert_eq!(answer.status(), 200, "{offered:?}");
        }
    }
    let strange = scene.gate.settings.authority().client_config(&["spdy/3"], None);
    assert!(scene.exchange(strange, "x").is_err(), "RFC 7301 §3.2: no common protocol is an error");
    let bearer = format!("Authorization: Bearer {}", scene.issuer.good());
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        assert_eq!(
            scene.gate.curl("/", &[flag, "-H", &bearer, "-o", "/dev/null", "-w", "%{http_version}"]),
            version
        );
    }
}

#[test]
fn what_is_no_tls_gets_no_http() {
    let scene = scene(Settings::tls());
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"[..],
        b"\0\0\0\0",
        b"\x16\x03\x01\xff\xff",
        &[0xff; 5000],
        b"\x80\x2e\x01\0\x02",
    ] {
        let mut wire = Wire::plain(scene.gate.public);
        drop(wire.send(bytes));
        wire.finish_sending();
        let answer = wire.rest().unwrap_or_default();
        assert!(!answer.starts_with(b"HTTP/"), "{bytes:?}: {answer:?}");
    }
    scene.gate.wait_for_metric("failed handshakes are counted", |scrape| {
        (scrape.sum("portcullis_tls_handshakes_total", &[("result", "error")]) >= 3.0).then_some(())
    });
    assert_eq!(scene.exchange(scene.client(), &scene.issuer.good()).unwrap().1.status(), 200);
    assert!(scene.gate.metrics().sum("portcullis_tls_handshakes_total", &[("result", "ok")]) >= 1.0);
}

#[test]
fn the_end_of_a_connection_is_announced() {
    let scene = scene(Settings::tls());
    let mut wire = scene.gate.connect();
    let request = scene.gate.get("/").token(&scene.issuer.good()).field("Connection", "close").bytes();
    assert_eq!(wire.exchange(request).unwrap().status(), 200);
    // Without close_notify the client could not tell the end from a truncation, and rustls reports an error.
    assert_eq!(wire.rest().unwrap(), b"");
}

fn with_client_ca(clients: &Authority, required: bool) -> Settings {
    let settings = Settings::tls()
        .server_tls(&format!("client_ca = \"clients.pem\"\nrequire_client_certificate = {required}"));
    settings.file("clients.pem", clients.certificate_pem());
    settings
}

/// Holds docs/configuration.md, Settings: server.tls.client_ca, .require_client_certificate
#[test]
fn client_certificates_are_verified_when_they_are_asked_for() {
    let (clients, others) = (Authority::new(), Authority::new());
    for required in [true, false] {
        let scene = scene(with_client_ca(&clients, required));
        let token = scene.issuer.good();
        let good = scene.exchange(scene.with(&clients.client("alice")), &token);
        assert_eq!(good.unwrap().1.status(), 200, "required: {required}");
        assert!(
            scene.exchange(scene.with(&others.client("mallory")), &token).is_err(),
            "of another authority"
        );
        assert!(
            scene.exchange(scene.with(&clients.server(&["alice"])), &token).is_err(),
            "a certificate of a server"
        );
        let without = scene.exchange(scene.client(), &token);
        if required {
            assert!(without.is_err(), "none at all");
        } else {
            assert_eq!(without.unwrap().1.status(), 200);
        }
    }
}

/// Holds docs/configuration.md, Settings: server.tls.client_ca, .require_client_certificate
#[test]
fn a_token_bound_to_a_certificate_is_good_with_that_one_alone() {
    let clients = Authority::new();
    let scene = scene(with_client_ca(&clients, false));
    let (alice, bob) = (clients.client("alice"), clients.client("bob"));
    let bound = scene.issuer.token().claim("cnf", json!({"x5t#S256": alice.thumbprint()})).build();
    assert_eq!(scene.exchange(scene.with(&alice), &bound).unwrap().1.status(), 200);
    for (name, config) in [("another certificate", scene.with(&bob)), ("no certificate", scene.client())] {
        let ((_, answer), decision) = scene.gate.decision(|| scene.exchange(config, &bound).unwrap());
        assert_eq!((answer.status(), decision.as_str()), (401, "deny/certificate_mismatch"), "{name}");
        assert!(answer.field("www-authenticate").unwrap().contains("error=\"invalid_token\""), "{name}");
    }
    assert_eq!(
        scene.exchange(scene.with(&alice), &bound).unwrap().1.status(),
        200,
        "still good with its own"
    );
    assert_eq!(
        scene.exchange(scene.with(&bob), &scene.issuer.good()).unwrap().1.status(),
        200,
        "an unbound one is good with any"
    );
    let thumbprint = run(
        "sh",
        &[
            "-c",
            &format!(
                "openssl x509 -in {} -outform DER | openssl dgst -sha256 -binary | openssl base64 -A | tr '+/' '-_' | tr -d =",
                path_text(&scene.gate.settings.file("alice.pem", &alice.chain))
            ),
        ],
    );
    assert_eq!(thumbprint, alice.thumbprint(), "the thumbprint as RFC 8705 has it");
}

#[test]
fn sessions_are_resumed_also_after_a_reload() {
    let scene = scene(Settings::tls());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = Arc::new(
            ClientConfig::builder_with_protocol_versions(&[version])
                .with_root_certificates(scene.gate.settings.authority().roots())
                .with_no_client_auth(),
        );
        let token = scene.issuer.good();
        assert!(!scene.exchange_shared(&config, &token).unwrap().0.resumed);
        assert!(scene.exchange_shared(&config, &token).unwrap().0.resumed, "{version:?}");
        let reloads = scene.gate.reloads("ok");
        scene.gate.signal("HUP");
        scene.gate.wait_for_reloads("ok", reloads + 1.0);
        assert!(scene.exchange_shared(&config, &token).unwrap().0.resumed, "{version:?} after a reload");
    }
}

/// Holds docs/configuration.md, Settings: server.tls.session_tickets
#[test]
fn without_session_tickets_every_connection_begins_with_a_full_handshake() {
    let scene = scene(Settings::tls());
    let version = |version| {
        Arc::new(
            ClientConfig::builder_with_protocol_versions(&[version])
                .with_root_certificates(scene.gate.settings.authority().roots())
                .with_no_client_auth(),
        )
    };
    let clients = [version(&rustls::version::TLS13), version(&rustls::version::TLS12)];
    let resumed = |config| {
        let (handshake, answer) = scene.exchange_shared(config, &scene.issuer.good()).unwrap();
        assert_eq!(answer.status(), 200);
        handshake.resumed
    };
    for config in &clients {
        assert!(!resumed(config));
        assert!(resumed(config));
    }
    let reloads = scene.gate.reloads("ok");
    assert_eq!(check(&scene.gate.settings.clone().server_tls("session_tickets = false")).code, 0);
    scene.gate.signal("HUP");
    scene.gate.wait_for_reloads("ok", reloads + 1.0);
    for config in &clients {
        assert!(!resumed(config), "a ticket of before");
        assert!(!resumed(config), "there was none");
    }
    let port = format!("127.0.0.1:{}", scene.gate.public.port());
    for version in ["-tls1_3", "-tls1_2"] {
        let text = run("openssl", &["s_client", "-connect", &port, version, "-reconnect"]);
        assert!(!text.contains("session ticket") && !text.contains("Reused"), "{version}: {text}");
    }
}

#[test]
fn openssl_gets_aes_128_though_it_lists_aes_256_first_and_what_it_insists_on() {
    let scene = scene(Settings::tls());
    let port = format!("127.0.0.1:{}", scene.gate.public.port());
    let chosen = |version: &str, option: &str, suites: &str| {
        let text = run("openssl", &["s_client", "-connect", &port, version, option, suites]);
        let line = text.lines().find_map(|line| line.split_once("Cipher is "));
        line.map(|(_, suite)| suite.to_owned()).unwrap_or(text)
    };
    for (listed, suite) in [
        (
            "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
            "TLS_AES_128_GCM_SHA256",
        ),
        ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
    ] {
        assert_eq!(chosen("-tls1_3", "-ciphersuites", listed), suite);
    }
    for (listed, suite) in [
        ("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ] {
        assert_eq!(chosen("-tls1_2", "-cipher", listed), suite);
    }
}

#[test]
fn no_request_travels_in_0_rtt() {
    let scene = scene(Settings::tls());
    let mut config = scene.client();
    config.enable_early_data = true;
    let config = Arc::new(config);
    scene.exchange_shared(&config, &scene.issuer.good()).unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(config, name).unwrap();
    assert!(session.early_data().is_none(), "the gate's tickets allow no early data");
}

/// Holds docs/configuration.md, Settings: server.tls.certificate, .private_key
#[test]
fn a_new_certificate_is_served_without_a_restart() {
    let scene = scene(Settings::tls());
    let served = || scene.exchange(scene.client(), &scene.issuer.good()).unwrap().0.certificate;
    let first = served();
    let mut kept = scene.gate.connect();
    let settings = &scene.gate.settings;

    // By a changed file alone.
    let second = settings.authority().server(&["localhost", "second.test"]);
    settings.file("server.key", &second.key);
    settings.file("server.pem", &second.chain);
    eventually("the second certificate", || (served() == second.chain_der()[0].to_vec()).then_some(()));
    assert_ne!(served(), first);

    // By SIGHUP, at once.
    let third = settings.authority().server(&["localhost", "third.test"]);
    settings.file("server.key", &third.key);
    settings.file("server.pem", &third.chain);
    scene.gate.signal("HUP");
    eventually("the third certificate", || (served() == third.chain_der()[0].to_vec()).then_some(()));

    let answer = kept.exchange(scene.gate.get("/").token(&scene.issuer.good()).bytes()).unwrap();
    assert_eq!(answer.status(), 200, "a connection of before goes on");
}

#[test]
fn a_certificate_that_does_not_fit_its_key_is_not_taken() {
    let scene = scene(Settings::tls());
    let served = || scene.exchange(scene.client(), &scene.issuer.good()).unwrap().0.certificate;
    let first = served();
    let settings = &scene.gate.settings;
    let before = scene.gate.reloads("error");
    settings.file("server.pem", settings.authority().server(&["localhost"]).chain);
    scene.gate.signal("HUP");
    scene.gate.wait_for_reloads("error", before + 1.0);
    assert_eq!(served(), first, "the old pair stays");
    scene.gate.log().wait_for_text("server.pem");
    let outcome = check(settings);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("server.pem") || outcome.err.contains("server.key"), "{outcome:?}");
}

#[test]
fn the_expiry_of_certificates_can_be_watched() {
    let scene = scene(Settings::tls());
    let metrics = scene.gate.metrics();
    let watched: Vec<f64> = metrics
        .family("portcullis_certificate_expiry_seconds")
        .filter(|(labels, _)| labels["path"].ends_with("server.pem"))
        .map(|(_, seconds)| seconds)
        .collect();
    assert_eq!(watched.len(), 1, "{metrics:?}");
    assert!(watched[0] > 86_400.0, "{watched:?}");
}

/// Sends a request with this token on a connection; returns whether the session was resumed and the status, if
/// the handshake succeeded.
fn status(scene: &Scene, config: &Arc<ClientConfig>, token: &str) -> (bool, Option<u16>) {
    let Ok((mut wire, handshake)) = Wire::tls_shared(scene.gate.public, "localhost", config) else {
        return (false, None);
    };
    let answer = wire.exchange(scene.gate.get("/").token(token).bytes());
    (handshake.resumed, answer.ok().map(|answer| answer.status()))
}

#[test]
fn an_expired_client_certificate_is_good_for_no_request_and_no_stream() {
    let clients = Authority::new();
    for required in [true, false] {
        let app = testkit::app::App::start(testkit::app::Speaks::Http1);
        let issuer = Issuer::new();
        let settings = with_client_ca(&clients, required)
            .guarding(&app.url(), &issuer)
            .toml("[streams]\ncheck_interval = \"100ms\"\n");
        let scene = Scene { _upstream: RawUpstream::start(), issuer, gate: Gate::start(&settings) };
        let end = testkit::now() + 5;
        let identity = clients.client_until("alice", end);
        let bound = scene.issuer.token().claim("cnf", json!({"x5t#S256": identity.thumbprint()})).build();
        let free = scene.issuer.good();
        let config = Arc::new(scene.with(&identity));
        assert_eq!(status(&scene, &config, &bound), (false, Some(200)));
        assert_eq!(status(&scene, &config, &bound), (true, Some(200)), "resumed");
        let open = |path: &str, token: &str| {
            let (mut wire, _) = Wire::tls_shared(scene.gate.public, "localhost", &config).unwrap();
            wire.send(scene.gate.get(path).token(token).bytes()).unwrap();
            assert_eq!(wire.head().unwrap().status, 200);
            wire
        };
        let mut kept = Wire::tls_shared(scene.gate.public, "localhost", &config).unwrap().0;
        assert_eq!(kept.exchange(scene.gate.get("/").token(&bound).bytes()).unwrap().status(), 200);
        let (mut of_bound, mut of_free) = (open("/events", &bound), open("/events", &free));
        app.emit("tick");
        assert!(of_bound.chunk().unwrap().is_some() && of_free.chunk().unwrap().is_some());

        // No request is in flight when the certificate expires: it would be cut as well, and counted.
        assert!(of_bound.chunk().is_err(), "the stream of a bound token is cut");
        assert!(testkit::now() >= end, "cut before its time");
        let cuts = if required { 2.0 } else { 1.0 };
        scene.gate.wait_for_metric("the cuts are counted", |metrics| {
            let counted = metrics.sum("portcullis_streams_cut_total", &[("reason", "certificate_mismatch")]);
            (counted == cuts).then_some(())
        });
        assert_eq!(
            status(&scene, &config, &bound),
            (true, Some(401)),
            "the session is resumed, and good for nothing"
        );
        assert_eq!(kept.exchange(scene.gate.get("/").token(&bound).bytes()).unwrap().status(), 401);
        let others = if required { 401 } else { 200 };
        assert_eq!(status(&scene, &config, &free), (true, Some(others)), "required: {required}");
        if !required {
            app.emit("tock");
            assert!(of_free.chunk().unwrap().is_some(), "it does not depend on the certificate");
        }
        let fresh = Arc::new(scene.with(&identity));
        assert_eq!(status(&scene, &fresh, &bound), (false, None), "no handshake with it");
    }
}

#[test]
fn a_client_certificate_of_other_roots_is_good_for_nothing_after_a_reload() {
    for required in [true, false] {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let scene = scene(with_client_ca(&ours, required));
        let alice = ours.client("alice");
        let bound = scene.issuer.token().claim("cnf", json!({"x5t#S256": alice.thumbprint()})).build();
        let free = scene.issuer.good();
        let config = Arc::new(scene.with(&alice));
        let mut kept = Wire::tls_shared(scene.gate.public, "localhost", &config).unwrap().0;
        let mut on_kept = |token: &str| kept.exchange(scene.gate.get("/").token(token).bytes());
        assert_eq!(on_kept(&bound).unwrap().status(), 200);
        // Both CAs, then only theirs: clients that are still trusted continue.
        let both = ours.certificate_pem() + &theirs.certificate_pem();
        for (roots, of_bound, of_free) in
            [(both, 200, 200), (theirs.certificate_pem(), 401, if required { 401 } else { 200 })]
        {
            let reloads = scene.gate.reloads("ok");
            scene.gate.settings.file("clients.pem", roots);
            scene.gate.signal("HUP");
            scene.gate.wait_for_reloads("ok", reloads + 1.0);
            assert_eq!(on_kept(&free).unwrap().status(), of_free, "required: {required}");
            if of_free == 200 {
                assert_eq!(on_kept(&bound).unwrap().status(), of_bound, "required: {required}");
            }
        }
        assert_eq!(status(&scene, &config, &free), (false, None), "its session is not resumed");
    }
}

#[test]
fn a_preflight_with_a_client_certificate_of_other_roots_is_rejected_like_any_request() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let cors = "cors = { origins = [\"https://app.example\"] }";
    let scene = scene(with_client_ca(&ours, true).route("/pages", cors));
    let config = Arc::new(scene.with(&ours.client("alice")));
    let mut kept = Wire::tls_shared(scene.gate.public, "localhost", &config).unwrap().0;
    let preflight = scene.gate.request("OPTIONS", "/pages").field("Origin", "https://app.example");
    let preflight = preflight.field("Access-Control-Request-Method", "GET").bytes();
    assert_eq!(kept.exchange(preflight.clone()).unwrap().status(), 204);
    let reloads = scene.gate.reloads("ok");
    scene.gate.settings.file("clients.pem", theirs.certificate_pem());
    scene.gate.signal("HUP");
    scene.gate.wait_for_reloads("ok", reloads + 1.0);
    let answer = kept.exchange(preflight).unwrap();
    let origin = answer.field("access-control-allow-origin");
    assert_eq!((answer.status(), origin), (401, Some("https://app.example")), "and the page can read why");
}

/// The certificate that the server presents for this name, and the status of a request.
fn shown(scene: &Scene, config: &Arc<ClientConfig>, name: &str) -> (Vec<u8>, u16) {
    let (mut wire, handshake) = Wire::tls_shared(scene.gate.public, name, config).unwrap();
    let answer = wire.exchange(scene.gate.get("/").token(&scene.issuer.good()).bytes()).unwrap();
    (handshake.certificate, answer.status())
}

/// `[[server.tls.certificates]]` with the files `NAME.pem` and `NAME.key`.
fn named(settings: Settings, file: &str, identity: &Identity, names: &str) -> Settings {
    settings.file(&format!("{file}.pem"), &identity.chain);
    settings.file(&format!("{file}.key"), &identity.key);
    settings.toml(&format!(
        "[[server.tls.certificates]]\nnames = [{names}]\ncertificate = \"{file}.pem\"\nprivate_key = \"{file}.key\"\n"
    ))
}

/// Holds docs/configuration.md, Settings: [[server.tls.certificates]]
#[test]
fn certificates_are_chosen_by_the_name_asked_for_and_each_is_reloaded_when_its_file_changes() {
    let settings = Settings::tls();
    // The default one is for all names, so that clients accept it where it is what they get.
    let every = ["localhost", "api.test", "127.0.0.1", "shop.test", "x.y.shop.test", "other.test"];
    let default = settings.authority().server(&every);
    settings.file("server.pem", &default.chain);
    settings.file("server.key", &default.key);
    let exact = settings.authority().server(&["a.shop.test", "*.exact.test"]);
    let wide = settings.authority().server(&["*.shop.test"]);
    let settings = named(settings, "exact", &exact, "\"a.shop.test\", \"*.exact.test\"");
    let settings = named(settings, "wide", &wide, "\"*.shop.test\"");
    let scene = scene(settings);
    let leaf = |identity: &Identity| identity.chain_der()[0].to_vec();
    let table = [
        ("a.shop.test", &exact),
        ("A.Shop.TEST", &exact),
        ("any.exact.test", &exact),
        ("b.shop.test", &wide),
        ("shop.test", &default),
        ("x.y.shop.test", &default),
        ("other.test", &default),
        ("localhost", &default),
        // An address is no name to ask for.
        ("127.0.0.1", &default),
    ];
    for (alpn, versions) in
        [("http/1.1", vec![&rustls::version::TLS12]), ("http/1.1", vec![&rustls::version::TLS13])]
    {
        for (name, expected) in &table {
            let roots = scene.gate.settings.authority().roots();
            let mut config = ClientConfig::builder_with_protocol_versions(&versions)
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
            let config = Arc::new(config);
            assert_eq!(shown(&scene, &config, name), (leaf(expected), 200), "{name}");
            let (_, again) = Wire::tls_shared(scene.gate.public, name, &config).unwrap();
            assert!(again.resumed, "{name}");
        }
    }
    let expiry = |file: &str| {
        let metrics = scene.gate.metrics();
        let family = metrics.family("portcullis_certificate_expiry_seconds");
        let found: Vec<f64> =
            family.filter(|(labels, _)| labels["path"].ends_with(file)).map(|(_, left)| left).collect();
        assert_eq!(found.len(), 1, "{file}: {metrics:?}");
        found[0]
    };
    for file in ["server.pem", "exact.pem", "wide.pem"] {
        assert!(expiry(file) > 86_400.0, "{file}");
    }

    // By a changed file alone, and the others stay.
    let config = Arc::new(scene.client());
    let settings = &scene.gate.settings;
    let renewed = settings.authority().server_until(&["*.shop.test"], testkit::now() + 3_600);
    settings.file("wide.key", &renewed.key);
    settings.file("wide.pem", &renewed.chain);
    let fresh = || Arc::new(scene.client());
    eventually("the renewed certificate", || {
        (shown(&scene, &fresh(), "b.shop.test").0 == leaf(&renewed)).then_some(())
    });
    assert_eq!(shown(&scene, &config, "a.shop.test"), (leaf(&exact), 200));
    scene.gate.wait_for_metric("the new expiry", |_| (expiry("wide.pem") <= 3_600.0).then_some(()));

    // One that is not for its names is refused, and the old one stays.
    let errors = scene.gate.reloads("error");
    let wrong = settings.authority().server(&["elsewhere.test"]);
    settings.file("wide.key", &wrong.key);
    settings.file("wide.pem", &wrong.chain);
    scene.gate.wait_for_reloads("error", errors + 1.0);
    assert_eq!(shown(&scene, &fresh(), "b.shop.test"), (leaf(&renewed), 200));
    let outcome = check(settings);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("\"*.shop.test\"") && outcome.err.contains("elsewhere.test"), "{outcome:?}");
}

#[test]
fn check_lists_certificates_and_warns_of_one_that_has_expired_without_refusing_it() {
    let settings = Settings::tls();
    let over = settings.authority().server_until(&["old.test"], 1_000_000_000);
    let settings = named(settings, "old", &over, "\"old.test\"");
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = settings.guarding(&upstream.url(), &issuer);
    let outcome = check(&settings);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let warning = outcome.err.lines().find(|line| line.starts_with("warning: ")).unwrap();
    assert!(warning.contains("old.pem") && warning.contains("2001-09-09"), "{outcome:?}");
    let listed = outcome.out.lines().find(|line| line.contains("old.pem")).unwrap();
    assert!(listed.contains("old.test") && listed.contains("until 2001-09-09"), "{outcome:?}");
    assert!(outcome.out.contains("every other name"), "{outcome:?}");
    // The others are served; so is this one, to clients that take it.
    let gate = Gate::start(&settings);
    gate.log().wait_for("the warning", |record| record["message"] == "a certificate has expired");
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    let config = Arc::new(gate.settings.authority().client_config(&["http/1.1"], None));
    let refused = Wire::tls_shared(gate.public, "old.test", &config).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("xpired"), "{refused}");
}
