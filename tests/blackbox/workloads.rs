//! Issuers of workloads: a Kubernetes cluster whose API server requires a token, SPIFFE trust domains, and one
//! issuer with several tables.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use testkit::eventually;
use testkit::gate::{Gate, binary, check, path_text, run_to_end};
use testkit::issuer::{KeyServer, Source};
use testkit::now;
use testkit::pki::Authority;
use testkit::raw_upstream::{Exchange, Next, RawUpstream};
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer, Token, unique};

const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";

/// The token that the API server currently accepts, and the keys that it returns for it.
struct Granted {
    bearer: String,
    keys: Value,
}

/// An API server that returns its key set only to service accounts, and the folder that is mounted in
/// a pod of the cluster.
struct Cluster {
    tokens: Issuer,
    next: Signer,
    server: RawUpstream,
    granted: Arc<Mutex<Granted>>,
    account: PathBuf,
}

impl Cluster {
    fn start(settings: &Settings) -> Self {
        let tokens = Issuer { audience: "gate".to_owned(), ..Issuer::named(CLUSTER) };
        let granted = Arc::new(Mutex::new(Granted { bearer: String::new(), keys: tokens.jwks() }));
        let (authority, known) = (Authority::new(), Arc::clone(&granted));
        let identity = authority.server(&["kubernetes.default.svc", "127.0.0.1"]);
        let server = RawUpstream::with_tls(identity.server_config(&[], None), move |exchange| {
            let granted = known.lock().unwrap();
            let is_granted = exchange.request.all("authorization") == [format!("Bearer {}", granted.bearer)];
            match exchange.request.line().as_str() {
                "GET /openid/v1/jwks HTTP/1.1" if is_granted => exchange.answer(
                    "200 OK",
                    "content-type: application/jwk-set+json\r\n",
                    &granted.keys.to_string(),
                ),
                "GET /openid/v1/jwks HTTP/1.1" => exchange.answer("401 Unauthorized", "", ""),
                _ => exchange.answer("404 Not Found", "", ""),
            }
        });
        let account = settings.folder().join("serviceaccount");
        fs::create_dir(&account).unwrap();
        fs::write(account.join("ca.crt"), authority.certificate_pem()).unwrap();
        let cluster = Self { tokens, next: Signer::new("RS256", "next"), server, granted, account };
        cluster.rotate();
        cluster
    }

    /// Gives the pod another token, and invalidates the previous one.
    fn rotate(&self) -> String {
        let token =
            self.tokens.token().claim("aud", CLUSTER).claim("sub", "system:serviceaccount:edge:gate").build();
        self.granted.lock().unwrap().bearer.clone_from(&token);
        // As the kubelet does it: a new file in place of the old one.
        fs::write(self.account.join("token.new"), format!("{token}\n")).unwrap();
        fs::rename(self.account.join("token.new"), self.account.join("token")).unwrap();
        token
    }

    /// A token that a pod presents to the gate.
    fn token<'a>(&'a self, signer: &'a Signer) -> Token<'a> {
        self.tokens
            .token_by(signer)
            .without("client_id")
            .without("scope")
            .head("typ", "JWT")
            .claim("sub", "system:serviceaccount:prod:api")
            .claim(
                "kubernetes.io",
                json!({"namespace": "prod", "serviceaccount": {"name": "api", "uid": unique()}}),
            )
    }

    /// Sets the variables that tell clients in the cluster the address of the API server.
    fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let port = self.server.url().rsplit_once(':').unwrap().1.to_owned();
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", port)
    }
}

/// Holds docs/configuration.md, Settings: issuers[].kubernetes, .kubernetes_path
#[test]
fn a_gate_in_a_pod_needs_only_to_be_told_so() {
    let upstream = RawUpstream::start();
    let settings = Settings::plaintext();
    let cluster = Cluster::start(&settings);
    let settings = settings
        .upstream("api", &upstream.url(), "")
        .toml(
            "[[issuers]]\nkubernetes = true\nkubernetes_path = \"serviceaccount\"\naudiences = [\"gate\"]\n\
             refresh_interval = \"200ms\"\nrefresh_cooldown = \"100ms\"",
        )
        .route("/{*rest}", "");
    let gate = Gate::launch_with(&settings, |command| {
        cluster.environment(command);
    });
    gate.wait_until_ready();
    let first = &cluster.tokens.signers[0];
    let decide = |token: &str| gate.decision(|| gate.get("/").token(token).send()).1;
    assert_eq!(decide(&cluster.token(first).build()), "allow/none");
    assert_eq!(upstream.last().field("x-auth-subject").as_deref(), Some("system:serviceaccount:prod:api"));
    assert_eq!(decide(&cluster.token(&cluster.next).build()), "deny/unknown_key");

    // The token that the pod had is worth nothing any more, and there are other keys.
    let before = cluster.rotate();
    cluster.granted.lock().unwrap().keys = json!({"keys": [cluster.next.jwk()]});
    eventually("the next keys are fetched with the next token", || {
        (gate.get("/").token(&cluster.token(&cluster.next).build()).send().status() == 200).then_some(())
    });
    assert_eq!(decide(&cluster.token(first).build()), "deny/unknown_key");
    let bearer = format!("Bearer {before}");
    assert!(
        cluster.server.seen().iter().any(|seen| seen.field("authorization").as_deref() == Some(&*bearer))
    );
    assert!(cluster.server.seen().iter().all(|seen| seen.target() == "/openid/v1/jwks"));
    assert_eq!(gate.readiness().1["components"][format!("keys:{CLUSTER}")], "ok");
    for secret in [before.as_str(), before.rsplit_once('.').unwrap().1] {
        assert!(!gate.log().text().contains(secret), "the pod's token is in the log");
    }

    // Tokens that never expire are refused, and it is said what to do.
    let legacy = cluster
        .token(&cluster.next)
        .without("exp")
        .without("aud")
        .claim("iss", "kubernetes/serviceaccount")
        .build();
    assert_eq!(decide(&legacy), "deny/unknown_issuer");
    assert_eq!(decide(&cluster.token(&cluster.next).without("exp").build()), "deny/missing_claim");
    let explain = |token: &str| {
        let mut command = Command::new(binary());
        command.args(["explain", "--config", path_text(&settings.write()), token]);
        run_to_end(cluster.environment(&mut command))
    };
    let said = explain(&legacy);
    assert!(said.code == 1 && said.out.contains("use a projected token"), "{}\n{}", said.out, said.err);
    let said = explain(&cluster.token(&cluster.next).build());
    assert!(said.code == 0, "{}\n{}", said.out, said.err);
}

/// The bearer tokens that a server received.
fn bearers(server: &RawUpstream) -> Vec<Vec<String>> {
    server.seen().iter().map(|seen| seen.all("authorization")).collect()
}

/// Holds docs/configuration.md, Settings: issuers[].jwks_authorization
#[test]
fn a_token_goes_to_the_host_that_has_the_keys_and_to_no_other() {
    let (upstream, issuer, secret) = (RawUpstream::start(), Issuer::new(), unique());
    let keys = issuer.jwks().to_string();
    let served = keys.clone();
    let elsewhere = RawUpstream::scripted(move |exchange| exchange.answer("200 OK", "", &served));
    let other = elsewhere.url();
    let script = move |exchange: &mut Exchange<'_>| -> Next {
        let here = format!("http://{}", exchange.request.field("host").unwrap());
        match exchange.request.target().as_str() {
            "/jwks" => exchange.answer("200 OK", "", &keys),
            "/moved" => exchange.answer("302 Found", &format!("location: {other}/jwks\r\n"), ""),
            "/here/.well-known/openid-configuration" => exchange.answer(
                "200 OK",
                "",
                &json!({"issuer": format!("{here}/here"), "jwks_uri": format!("{here}/jwks")}).to_string(),
            ),
            "/there/.well-known/openid-configuration" => exchange.answer(
                "200 OK",
                "",
                &json!({"issuer": format!("{here}/there"), "jwks_uri": format!("{other}/jwks")}).to_string(),
            ),
            _ => exchange.answer("404 Not Found", "", ""),
        }
    };
    for (source, name, is_good, asked) in [
        ("jwks_url = \"{}/jwks\"", "https://idp.example.com/", true, 0),
        ("jwks_url = \"{}/moved\"", "https://idp.example.com/", false, 0),
        ("discovery = true", "{}/here", true, 0),
        ("discovery = true", "{}/there", true, 1),
    ] {
        let server = RawUpstream::scripted(script.clone());
        let before = elsewhere.count();
        let settings = Settings::plaintext();
        settings.file("token", format!("{secret}\n"));
        let name = name.replace("{}", &server.url());
        let settings = settings
            .upstream("api", &upstream.url(), "")
            .toml(&format!(
                "[[issuers]]\nissuer = \"{name}\"\naudiences = [\"{}\"]\n{}\njwks_authorization = {{ file = \"token\" }}",
                issuer.audience,
                source.replace("{}", &server.url())
            ))
            .route("/{*rest}", "");
        let gate = Gate::launch(&settings);
        if is_good {
            gate.wait_until_ready();
            let token = issuer.token().claim("iss", name.as_str()).build();
            assert_eq!(gate.get("/").token(&token).send().status(), 200, "{source} {name}");
        } else {
            let failed = [("issuer", name.as_str()), ("result", "error")];
            gate.wait_for_metric("a fetch fails", |scrape| {
                (scrape.sum("portcullis_keys_refresh_total", &failed) > 0.0).then_some(())
            });
        }
        let sent = bearers(&server);
        assert!(
            !sent.is_empty() && sent.iter().all(|sent| *sent == [format!("Bearer {secret}")]),
            "{sent:?}"
        );
        let passed_on = bearers(&elsewhere).split_off(before);
        assert_eq!(passed_on, vec![Vec::<String>::new(); asked], "{source} {name}");
        assert!(!gate.log().text().contains(&secret), "the token is in the log");
    }
}

/// Holds docs/configuration.md, Settings: issuers[].jwks_authorization
#[test]
fn a_token_comes_from_the_configuration_the_environment_or_a_file_that_is_read_again() {
    let (upstream, issuer, secret) = (RawUpstream::start(), Issuer::new(), unique());
    let keys = issuer.jwks().to_string();
    for written in
        [format!("\"{secret}\""), "{ env = \"KEYS_TOKEN\" }".to_owned(), "{ file = \"token\" }".to_owned()]
    {
        let keys = keys.clone();
        let server = RawUpstream::scripted(move |exchange| exchange.answer("200 OK", "", &keys));
        let settings = Settings::plaintext();
        settings.file("token", &secret);
        let source = Source::Url(format!("{}/jwks", server.url()));
        let lines = format!(
            "jwks_authorization = {written}\nrefresh_interval = \"200ms\"\nrefresh_cooldown = \"100ms\""
        );
        let settings = settings
            .upstream("api", &upstream.url(), "")
            .issuer_from(&issuer, &source, &lines)
            .route("/{*rest}", "");
        let gate = Gate::launch_with(&settings, |command| {
            command.env("KEYS_TOKEN", &secret);
        });
        gate.wait_until_ready();
        assert_eq!(bearers(&server)[0], [format!("Bearer {secret}")], "{written}");
        if written.contains("file") {
            let next = unique();
            settings.file("token", &next);
            eventually("the next token is sent", || {
                (bearers(&server).last().unwrap() == &[format!("Bearer {next}")]).then_some(())
            });
            fs::remove_file(settings.folder().join("token")).unwrap();
            let failed = [("issuer", issuer.name.as_str()), ("result", "error")];
            gate.wait_for_metric("without it nothing is asked", |scrape| {
                (scrape.sum("portcullis_keys_refresh_total", &failed) > 0.0).then_some(())
            });
            assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200, "the last good keys serve");
            assert!(bearers(&server).iter().all(|sent| sent.len() == 1), "never without");
        }
    }
}

const DOMAIN: &str = "spiffe://example.org";
const WORKLOAD: &str = "spiffe://example.org/ns/prod/sa/api";

/// The signing authorities of a trust domain, of every use and form that a bundle has.
struct Bundle {
    svid: Signer,
    x509: Signer,
    nameless: Signer,
}

impl Bundle {
    fn new() -> Self {
        Self {
            svid: Signer::new("ES256", "svid"),
            x509: Signer::new("ES256", "x509"),
            nameless: Signer::new("ES256", "nameless"),
        }
    }

    fn document(&self) -> Value {
        let key = |signer: &Signer, purpose: &str| {
            let mut jwk = signer.jwk();
            jwk.as_object_mut().unwrap().remove("alg");
            jwk["use"] = json!(purpose);
            jwk
        };
        let mut nameless = key(&self.nameless, "jwt-svid");
        nameless.as_object_mut().unwrap().remove("kid");
        let unused = Signer::new("ES256", "plain").jwk();
        json!({
            "keys": [key(&self.x509, "x509-svid"), key(&self.svid, "jwt-svid"), nameless, unused],
            "spiffe_sequence": 7, "spiffe_refresh_hint": 1,
        })
    }
}

/// Holds docs/configuration.md, Settings: issuers[].spiffe_trust_domain
#[test]
fn jwt_svids_are_told_by_the_trust_domain_of_their_subject() {
    let (upstream, bundle, other) = (RawUpstream::start(), Bundle::new(), Issuer::new());
    let server = KeyServer::start(bundle.document());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer(&other)
        .toml(&format!(
            "[[issuers]]\nspiffe_trust_domain = \"example.org\"\naudiences = [\"gate\"]\njwks_url = \"{}\"\n\
             refresh_cooldown = \"100ms\"\nmax_lifetime = \"1h\"",
            server.jwks_url()
        ))
        .route("/{*rest}", "")
        .admin();
    let gate = Gate::start(&settings);
    let names = Issuer { audience: "gate".to_owned(), ..Issuer::named("none") };
    let by = |signer| {
        let token = names.token_by(signer).without("iss").without("iat").without("jti").without("client_id");
        token.without("scope").headless("typ").claim("sub", WORKLOAD).claim("exp", now() + 300)
    };
    let (svid, stranger) = (|| by(&bundle.svid), Signer::new("ES256", "svid"));
    let rows = [
        ("neither iss nor iat nor jti", svid(), "allow/none"),
        (
            "all of them",
            svid().claim("iss", "https://spire.example.org").claim("iat", now()).claim("jti", "1"),
            "allow/none",
        ),
        ("a list of audiences", svid().claim("aud", json!(["x", "gate"])), "allow/none"),
        ("type JOSE", svid().head("typ", "JOSE"), "allow/none"),
        ("type at+jwt", svid().head("typ", "at+jwt"), "deny/wrong_type"),
        (
            "another trust domain",
            svid().claim("sub", "spiffe://example.com/ns/prod/sa/api"),
            "deny/unknown_issuer",
        ),
        ("a longer one", svid().claim("sub", "spiffe://example.org.evil.example/sa"), "deny/unknown_issuer"),
        ("in upper case", svid().claim("sub", "spiffe://EXAMPLE.org/sa"), "deny/unknown_issuer"),
        ("the trust domain itself", svid().claim("sub", DOMAIN), "deny/bad_claim"),
        ("no SPIFFE ID", svid().claim("sub", "alice"), "deny/unknown_issuer"),
        ("no sub", svid().without("sub"), "deny/unknown_issuer"),
        ("no aud", svid().without("aud"), "deny/wrong_audience"),
        ("another audience", svid().claim("aud", "x"), "deny/wrong_audience"),
        ("no exp", svid().without("exp"), "deny/missing_claim"),
        ("expired", svid().claim("exp", now() - 60), "deny/expired"),
        ("for two hours", svid().claim("exp", now() + 7200), "deny/too_long_lived"),
        ("by a key for X.509", by(&bundle.x509), "deny/unknown_key"),
        ("by a key without a name", by(&bundle.nameless).headless("kid"), "deny/bad_signature"),
        ("by a stranger", by(&stranger), "deny/bad_signature"),
        (
            "of a configured issuer",
            svid().claim("iss", other.name.as_str()).claim("iat", now()),
            "deny/wrong_audience",
        ),
    ];
    for (name, token, expected) in &rows {
        let decided = gate.decision(|| gate.get("/").token(&token.build()).send()).1;
        assert_eq!(decided, *expected, "{name}");
    }
    assert_eq!(upstream.last().field("x-auth-subject").as_deref(), Some(WORKLOAD));
    let (status, body) = gate.readiness();
    assert_eq!((status, &body["components"][format!("keys:{DOMAIN}")]), (200, &json!("ok")));
    let keys = gate.metrics().sum("portcullis_keys", &[("issuer", DOMAIN)]);
    assert!((keys - 1.0).abs() < 1e-9, "one key for JWT-SVIDs with a name, not {keys}");
    eventually("the bundle is fetched again when it asks for that", || (server.fetches() > 1).then_some(()));
    // Events name the trust domain.
    let token = svid().claim("jti", unique()).build();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    gate.publish(&json!({"type": "subject-revoked", "issuer": DOMAIN, "subject": WORKLOAD}));
    let decided = gate.decision(|| gate.get("/").token(&token).send()).1;
    assert_eq!(decided, "deny/subject_revoked");
    let said = run_to_end(Command::new(binary()).args([
        "explain",
        "--config",
        path_text(&settings.write()),
        &svid().claim("jti", unique()).build(),
    ]));
    assert!(
        said.code == 0 && said.out.contains("of the trust domain \"example.org\""),
        "{}\n{}",
        said.out,
        said.err
    );
}

/// Holds docs/configuration.md, Settings: issuers[].issuer, .audiences
#[test]
fn one_issuer_in_two_tables_is_judged_by_the_rules_of_its_audience() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let server = KeyServer::start(issuer.jwks());
    let reports = Issuer { audience: "reports".to_owned(), ..Issuer::new() };
    let source = Source::Url(server.jwks_url());
    let table = |settings: Settings, lines: &str| {
        settings
            .upstream("api", &upstream.url(), "")
            .issuer_from(&issuer, &source, "")
            .issuer_from(&reports, &source, lines)
            .route("/{*rest}", "any_role = [\"r\"]")
            .admin()
    };
    let settings =
        table(Settings::plaintext(), "max_lifetime = \"30m\"\n[issuers.claims]\nroles = \"groups\"");
    let gate = Gate::start(&settings);
    let token = || issuer.token().claim("jti", unique());
    let short = || token().claim("exp", now() + 600);
    let rows = [
        ("the first audience", token().claim("roles", json!(["r"])), "allow/none"),
        ("the second", short().claim("aud", "reports").claim("groups", json!(["r"])), "allow/none"),
        (
            "both",
            token().claim("aud", json!(["reports", issuer.audience])).claim("roles", json!(["r"])),
            "allow/none",
        ),
        (
            "the claims of the other",
            short().claim("aud", "reports").claim("roles", json!(["r"])),
            "deny/insufficient_role",
        ),
        (
            "the lifetime of the other",
            token().claim("aud", "reports").claim("groups", json!(["r"])),
            "deny/too_long_lived",
        ),
        ("neither", short().claim("aud", "x"), "deny/wrong_audience"),
    ];
    for (name, token, expected) in &rows {
        assert_eq!(gate.decision(|| gate.get("/").token(&token.build()).send()).1, *expected, "{name}");
    }
    assert_eq!(server.fetches(), 1, "one set of keys");
    let metrics = gate.metrics();
    let one = metrics.sum("portcullis_keys", &[("issuer", issuer.name.as_str())]);
    assert!((one - 1.0).abs() < 1e-9, "{one}");
    let components = gate.readiness().1["components"].as_object().unwrap().clone();
    assert_eq!(components.keys().filter(|name| name.starts_with("keys:")).count(), 1, "{components:?}");
    // One issuer is configured, so an event need not name it, and reaches the tokens of both tables.
    let of_both = [token().claim("roles", json!(["r"])).build(), rows[1].1.build()];
    for token in &of_both {
        assert_eq!(gate.get("/").token(token).send().status(), 200);
    }
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    for token in &of_both {
        assert_eq!(gate.decision(|| gate.get("/").token(token).send()).1, "deny/subject_revoked");
    }
    // A reload keeps the one set of keys.
    gate.signal("HUP");
    gate.wait_for_reloads("ok", 1.0);
    assert_eq!(server.fetches(), 1);
    let wrong =
        check(&table(Settings::plaintext(), "audiences = [\"reports\", \"https://api.example.com\"]"));
    assert!(
        wrong.code == 2 && wrong.err.contains("is already an audience of this issuer on line"),
        "{}",
        wrong.err
    );
}
