//! The commands: exit codes, and that all problems are reported at once.

use std::collections::BTreeSet;
use std::process::Command;

use testkit::gate::{Gate, binary, check, path_text, portcullis};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;

#[test]
fn a_good_configuration_is_shown_with_its_routes() {
    let issuer = Issuer::new();
    let settings = Settings::tls()
        .upstream("api", "http://127.0.0.1:3000", "")
        .issuer(&issuer)
        .route("/deals/{*rest}", "scopes = [\"read:deals\"]\nmethods = [\"GET\"]")
        .route("/health", "anonymous = true");
    let outcome = check(&settings);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{outcome:?}");
    for text in ["/deals/{*rest}", "read:deals", "GET", "/health", "api", issuer.name.as_str()] {
        assert!(outcome.out.contains(text), "{text} in {}", outcome.out);
    }
}

/// Holds docs/operations.md, Failure modes: a bad configuration at start
#[test]
fn all_problems_are_told_at_once_each_with_file_line_and_key() {
    let issuer = Issuer::new();
    let settings = Settings::plaintext()
        .server("drain_timeout = \"soon\"\nshutdown_dealy = \"1s\"")
        .limits("headers = -1")
        .upstream("api", "gopher://127.0.0.1", "")
        .issuer_with(&issuer, "leeway = \"1 fortnight\"\nalgorithms = [\"none\"]")
        .route("/a", "upstream = \"nowhere\"")
        .route("b", "");
    let outcome = check(&settings);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    for text in
        ["drain_timeout", "shutdown_dealy", "headers", "url", "leeway", "algorithms", "upstream", "path"]
    {
        let line = outcome
            .err
            .lines()
            .find(|line| line.contains(text))
            .unwrap_or_else(|| panic!("{text} in {}", outcome.err));
        assert!(line.contains("portcullis.toml:") || line.contains("portcullis.toml"), "the file: {line}");
    }
    let toml = settings.to_toml();
    let number = toml.lines().position(|line| line.contains("shutdown_dealy")).unwrap() + 1;
    assert!(outcome.err.contains(&format!(":{number}")), "line {number} of\n{toml}\nin {}", outcome.err);
}

#[test]
fn what_cannot_work_is_refused_before_it_starts() {
    let issuer = Issuer::new();
    let authority = Authority::new();
    let base =
        || Settings::plaintext().upstream("api", "http://127.0.0.1:1", "").issuer(&issuer).route("/", "");
    let rows = [
        ("no TLS", "allow_plaintext", base().server("allow_plaintext = false")),
        ("no such certificate", "missing.pem", base().toml("[server.tls]\ncertificate = \"missing.pem\"\nprivate_key = \"missing.key\"\n")),
        ("an issuer without keys", "jwks", base().toml("[[issuers]]\nissuer = \"https://x.example.com/\"\naudiences = [\"a\"]\n")),
        ("an issuer with two sources", "jwks", base().toml("[[issuers]]\nissuer = \"https://x.example.com/\"\naudiences = [\"a\"]\ndiscovery = true\njwks_file = \"x.json\"\n")),
        ("an issuer without audiences", "audiences", base().toml("[[issuers]]\nissuer = \"https://x.example.com/\"\ndiscovery = true\n")),
        ("an issuer twice", "issuer", base().issuer(&issuer)),
        ("HS256 without a secret", "HS256", base().toml("[[issuers]]\nissuer = \"https://x.example.com/\"\naudiences = [\"a\"]\ndiscovery = true\nalgorithms = [\"HS256\"]\n")),
        ("a secret with RS256", "algorithms", base().toml("[[issuers]]\nissuer = \"https://x.example.com/\"\naudiences = [\"a\"]\nsecret = \"0123456789012345678901234567890123456789\"\nalgorithms = [\"RS256\"]\n")),
        ("a secret that is too short", "secret", base().toml("[[issuers]]\nissuer = \"https://x.example.com/\"\naudiences = [\"a\"]\nsecret = \"short\"\nalgorithms = [\"HS256\"]\n")),
        ("a secret from an empty environment", "NOT_SET_ANYWHERE", base().toml("[[issuers]]\nissuer = \"https://x.example.com/\"\naudiences = [\"a\"]\nsecret = { env = \"NOT_SET_ANYWHERE\" }\nalgorithms = [\"HS256\"]\n")),
        ("an upstream twice", "api", base().upstream("api", "http://127.0.0.1:2", "")),
        ("an admin listener for everybody without TLS", "admin", base().toml("[admin]\nlisten = \"0.0.0.0:9443\"\n")),
        ("an unknown table", "sever", base().toml("[sever]\n")),
        ("an invalid identity header", "identity", base().toml("[identity.headers]\n\"x y\" = \"sub\"\n")),
        ("an unknown identity claim", "identity", base().toml("[identity.headers]\nx-a = \"subject\"\n")),
        ("an unknown log level", "log_level", base().telemetry("log_level = \"loud\"")),
        ("a proxy that is no network", "trusted_proxies", base().server("trusted_proxies = [\"10.0.0.0/33\"]")),
    ];
    for (name, hint, settings) in rows {
        let outcome = check(&settings);
        assert_eq!(outcome.code, 2, "{name}: {outcome:?}");
        assert!(outcome.err.contains(hint), "{name}: {hint} in {}", outcome.err);
        let run = portcullis(&["run", "--config", path_text(&settings.write())]);
        assert_eq!(run.code, 2, "{name}: {run:?}");
        assert!(run.err.contains(hint), "{name}: run says the same: {run:?}");
    }
    drop(authority);
}

#[test]
fn secrets_never_appear_among_the_problems() {
    let settings = Settings::plaintext().toml(
        "[[issuers]]\nissuer = \"https://x.example.com/\"\naudiences = [\"a\"]\nsecret = \"hunter2\"\nalgorithms = [\"HS256\"]\n\
         [admin]\n[[admin.tokens]]\nname = \"ops\"\nsecret = \"hunter3\"\npermissions = [\"everything\"]\n",
    );
    let outcome = check(&settings);
    assert_eq!(outcome.code, 2);
    assert!(!outcome.err.contains("hunter") && !outcome.out.contains("hunter"), "{outcome:?}");
}

#[test]
fn usage_errors_are_2_and_help_is_0() {
    for arguments in
        [&["frobnicate"][..], &["run", "--no-such-flag"], &["check", "--config"], &["run", "stray"], &[]]
    {
        let outcome = portcullis(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {outcome:?}");
        assert!(!outcome.err.is_empty(), "{arguments:?}");
    }
    for arguments in
        [&["--help"][..], &["run", "--help"], &["check", "--help"], &["demo", "--help"], &["--version"]]
    {
        let outcome = portcullis(arguments);
        assert_eq!(outcome.code, 0, "{arguments:?}: {outcome:?}");
        assert!(!outcome.out.is_empty(), "{arguments:?}");
    }
    for command in ["run", "check"] {
        let outcome = portcullis(&[command, "--config", "/nonexistent/portcullis.toml"]);
        assert_eq!(outcome.code, 2, "{command}: {outcome:?}");
        assert!(outcome.err.contains("/nonexistent/portcullis.toml"), "{command}: {outcome:?}");
    }
}

#[test]
fn an_address_in_use_is_a_failure_at_run_time() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let issuer = Issuer::new();
    for settings in [
        Settings::plaintext().server(&format!("listen = [\"{address}\"]")),
        Settings::plaintext().telemetry(&format!("listen = \"{address}\"")),
        Settings::plaintext().toml(&format!("[admin]\nlisten = \"{address}\"\n")),
    ] {
        let settings = settings.guarding("http://127.0.0.1:1", &issuer);
        let outcome = portcullis(&["run", "--config", path_text(&settings.write())]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let said = format!("{}{}", outcome.err, outcome.out);
        assert!(said.contains(&address.to_string()), "{said}");
    }
}

#[test]
fn the_configuration_can_be_named_by_the_environment() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer);
    let output =
        Command::new(binary()).arg("check").env("PORTCULLIS_CONFIG", settings.write()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Holds docs/configuration.md, Settings: server.listen
/// Holds docs/configuration.md, Settings: server.workers
#[test]
fn several_addresses_and_workers_serve_at_once() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext()
        .server("listen = [\"127.0.0.1:0\", \"[::1]:0\"]\nworkers = 3")
        .guarding(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let addresses: BTreeSet<String> = gate
        .log()
        .records()
        .iter()
        .filter(|record| testkit::gate::field(record, "listener") == Some("public"))
        .filter_map(|record| testkit::gate::field(record, "address").map(str::to_owned))
        .collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        for _ in 0..10 {
            let mut wire = testkit::wire::Wire::plain(address.parse().unwrap());
            assert_eq!(
                wire.exchange(gate.get("/").token(&issuer.good()).bytes()).unwrap().status(),
                200,
                "{address}"
            );
        }
    }
}
