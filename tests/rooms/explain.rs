//! `portcullis explain` as a process: exit codes, its output, and the store while a gate uses it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a broken promise fails the test")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use portcullis::events::{EventIssuer, EventLog, parse};
use portcullis::identity::TokenKey;
use portcullis::revocations::Revocations;
use portcullis::state::record::{EventSource, SessionRow};
use portcullis::state::{OpenError, Store};
use portcullis::time::{Monotonic, Now, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::tokens::{Signer, compact};

const ISSUER: &str = "https://idp.example.com/";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000;

const CONFIGURATION: &str = r#"
[server]
listen = ["127.0.0.1:0"]
allow_plaintext = true
[[upstreams]]
name = "api"
url = "http://127.0.0.1:3000"
[[issuers]]
issuer = "https://idp.example.com/"
audiences = ["api"]
algorithms = ["HS256"]
secret = "0123456789abcdef0123456789abcdef"
[[issuers]]
issuer = "https://down.example.com/"
audiences = ["api"]
jwks_url = "http://127.0.0.1:1/jwks"
[sessions]
idle_timeout = "5m"
[state]
path = "gate.db"
[[routes]]
path = "/deals/{*rest}"
methods = ["GET"]
upstream = "api"
scopes = ["read:deals"]
[[routes]]
path = "/deals/{*rest}"
methods = ["POST"]
hosts = ["api.example.com"]
upstream = "api"
scopes = ["write:deals"]
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("portcullis.toml"), CONFIGURATION).unwrap();
    folder
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "api", "sub": "alice", "scope": "read:deals", "jti": "j",
        "iat": NOW - 60, "exp": NOW + 3600,
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

fn token(claims: &Value) -> String {
    let alg = if claims["iss"] == ISSUER { "HS256" } else { "ES256" };
    let header = json!({"alg": alg, "typ": "at+jwt"}).to_string();
    compact(&Signer::secret("HS256", SECRET), "HS256", header.as_bytes(), claims.to_string().as_bytes())
}

struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the command in `folder`, with `input` on standard input.
fn explain_with(folder: &Path, arguments: &[&str], input: &str) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("explain").args(arguments).env("PORTCULLIS_CONFIG", "portcullis.toml").current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read it may be gone by now.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Explains a token at [`NOW`] for `GET /deals/7`.
fn explain(folder: &Path, token: &str) -> Outcome {
    explain_with(folder, &["--at", "1800000000", "--path", "/deals/7", token], "")
}

#[track_caller]
fn line<'o>(outcome: &'o Outcome, check: &str) -> &'o str {
    let found = outcome.out.lines().find(|line| line.split_whitespace().nth(1) == Some(check));
    found.unwrap_or_else(|| panic!("{check} in {}{}", outcome.out, outcome.err))
}

#[test]
fn a_good_token_is_allowed() {
    let folder = folder();
    let good = token(&claims(json!({})));
    let told = explain(folder.path(), &good);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{}", told.out);
    assert_eq!(
        told.out,
        "\
ok  target             GET \"/deals/7\"
ok  route              \"/deals/{*rest}\", number 1 of the configuration
ok  origin             Origin is absent; the route accepts every origin
ok  mcp                the route does not depend on MCP headers
ok  token              a signed JWT
ok  issuer             iss is \"https://idp.example.com/\"
ok  type               typ is \"at+jwt\"; accepted: \"at+jwt\", \"application/at+jwt\", \"JWT\", without events
ok  algorithm          alg is \"HS256\"; accepted: \"HS256\"
ok  dates              iat is 1799999940, exp is 1800003600, nbf is absent
ok  expiry             expires in 1h, at 2027-01-15T09:00:00.000Z; leeway 30s
ok  not_before         nbf is absent
ok  issued_at          issued 1m ago, at 2027-01-15T07:59:00.000Z; leeway 30s
ok  lifetime           exp − iat is 1h1m; max_lifetime 1d
ok  audience           aud is \"api\"; required, one of: \"api\"
ok  required_claims    present: \"sub\"
ok  key                kid is absent; the issuer has keys for HS256
ok  signature          matches
ok  claims             subject \"alice\", jti \"j\"
ok  certificate        the token is not bound to a client certificate
ok  proof              the token is not bound to a key
ok  resource           the route does not require a resource URL in aud
ok  route_issuers      the route accepts every configured issuer
ok  route_audiences    the route requires no additional audience
-   revocation         not checked: there is no store yet at gate.db
-   idle               not checked: there is no store yet at gate.db
ok  issuer_conditions  no conditions
ok  scopes             required: all of \"read:deals\"; the token has: \"read:deals\"
ok  roles              required: none; the token has: none
ok  claim_conditions   no conditions
ok  allow              the route has no alternatives
ok  authentication     the route has no authentication requirements
allowed, as far as could be checked
"
    );
    assert!(!folder.path().join("gate.db").exists(), "nothing is created");
    let from_stdin = ["--at", "2027-01-15T08:00:00Z", "--path", "/deals/7", "-"];
    assert_eq!(explain_with(folder.path(), &from_stdin, &format!("\n  {good}\r\n")).out, told.out);
}

#[test]
fn what_is_wrong_is_marked_and_ends_with_1() {
    let folder = folder();
    let with = |changes: Value| token(&claims(changes));
    let good = with(json!({}));
    let rows = [
        (
            with(json!({"exp": NOW - 192, "iat": NOW - 600})),
            "expired",
            "expiry",
            "expired 3m12s ago, at 2027-01-15T07:56:48.000Z; leeway 30s",
        ),
        (with(json!({"aud": "other"})), "wrong_audience", "audience", "aud is \"other\""),
        (
            with(json!({"scope": "read:users"})),
            "insufficient_scope",
            "scopes",
            "the token has: \"read:users\"",
        ),
        (
            with(json!({"iss": "https://evil.example.com/"})),
            "unknown_issuer",
            "issuer",
            "https://down.example.com/",
        ),
        (with(json!({"iss": "https://down.example.com/"})), "keys_unavailable", "key", "unavailable"),
        (with(json!({"sub": "\u{1b}[31m", "nbf": NOW + 31})), "not_yet_valid", "not_before", "valid in 31s"),
        (format!("{good}x"), "bad_signature", "signature", "does not match"),
        (format!("{good}="), "malformed", "token", "base64url"),
        (good.replacen('.', ".e30.", 1), "malformed", "token", "three parts"),
        ("garbage".to_owned(), "malformed", "token", "three parts"),
        (String::new(), "malformed", "token", "RFC 6750"),
        (format!("Bearer {good}"), "malformed", "token", "omit the prefix \"Bearer\""),
    ];
    for (token, reason, check, detail) in rows {
        let told = explain(folder.path(), &token);
        assert_eq!(told.code, Some(1), "{reason}: {}{}", told.out, told.err);
        assert_eq!(told.out.lines().last(), Some(format!("denied: {reason}").as_str()));
        let line = line(&told, check);
        assert!(line.starts_with("FAIL") && line.contains(detail), "{line}");
        assert!(!told.out.contains('\u{1b}'), "{}", told.out);
    }
    let down = explain(folder.path(), &with(json!({"iss": "https://down.example.com/"})));
    assert!(down.err.contains("http://127.0.0.1:1/jwks"), "{}", down.err);
}

#[test]
fn request_and_moment_can_be_chosen() {
    let folder = folder();
    let writer = token(&claims(json!({"scope": ["write:deals"]})));
    let at = "2027-01-15T08:00:00Z";
    let post = ["--at", at, "--method", "POST", "--path", "/deals", &writer];
    for (arguments, code, last) in [
        (
            &[&post[..], &["--host", "API.example.com:443"]].concat()[..],
            0,
            "allowed, as far as could be checked",
        ),
        (&post[..], 1, "denied: no_route"),
        (&["--at", at, "--path", "/deals", &writer][..], 1, "denied: insufficient_scope"),
        (&["--at", at, "--path", "/deals/../x", &writer], 1, "denied: bad_target"),
        (&["--at", at, &writer], 1, "denied: no_route"),
        (&["--at", "2027-01-15T09:00:30Z", "--path", "/deals", &writer], 1, "denied: expired"),
        (&["--at", "1799999909", "--path", "/deals", &writer], 1, "denied: issued_in_future"),
    ] {
        let told = explain_with(folder.path(), arguments, "");
        assert_eq!(
            (told.code, told.out.lines().last()),
            (Some(code), Some(last)),
            "{}{}",
            told.out,
            told.err
        );
    }
    // Without `--at` it is now, and the token of 2027 is not issued yet or long expired.
    assert_eq!(explain_with(folder.path(), &["--path", "/deals/7", &writer], "").code, Some(1));
}

#[test]
fn the_json_is_what_the_endpoint_answers() {
    let folder = folder();
    let bad = token(&claims(json!({"aud": "x"})));
    let told = explain_with(folder.path(), &["--json", "--at", "1800000000", "--path", "/deals", &bad], "");
    assert_eq!(told.code, Some(1));
    let json: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&json["allowed"], &json["reason"]), (&json!(false), &json!("wrong_audience")));
    assert_eq!(json.as_object().unwrap().len(), 3);
    let checks = json["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 31);
    for check in checks {
        assert_eq!(check.as_object().unwrap().len(), 3, "{check}");
        assert!(
            check["detail"].is_string() && (check["ok"].is_boolean() || check["ok"].is_null()),
            "{check}"
        );
    }
}

#[test]
fn bad_configuration_and_usage_end_with_2_and_repeat_no_token() {
    let folder = folder();
    let good = token(&claims(json!({})));
    let signature = good.rsplit_once('.').unwrap().1;
    std::fs::write(folder.path().join("bad.toml"), CONFIGURATION.replace("audiences", "audience")).unwrap();
    std::fs::write(folder.path().join("foreign.toml"), CONFIGURATION.replace("gate.db", "portcullis.toml"))
        .unwrap();
    let glued = format!("--token={good}");
    for arguments in [
        &["--config", "bad.toml", &good][..],
        &["--config", "nowhere.toml", &good],
        &["--config", "foreign.toml", &good],
        &["--at", "yesterday", &good],
        &["--method", "G T", &good],
        &["Bearer", &good],
        &[&good, &good],
        &[&glued],
        &[],
    ] {
        let told = explain_with(folder.path(), arguments, "");
        assert_eq!((told.code, told.out.as_str()), (Some(2), ""), "{arguments:?}: {}", told.err);
        assert!(!told.err.is_empty() && !told.err.contains(signature), "{arguments:?}: {}", told.err);
    }
    let help = explain_with(folder.path(), &["--help"], "");
    assert_eq!(help.code, Some(0));
    assert!(help.out.contains("standard input"), "{}", help.out);
}

#[test]
fn the_signature_is_never_printed() {
    let folder = folder();
    let good = token(&claims(json!({})));
    let (input, signature) = good.rsplit_once('.').unwrap();
    for token in
        [&good, &format!("{good}x"), &format!("{input}.{signature}.{signature}"), &signature.to_owned()]
    {
        for json in [&["--json"][..], &[]] {
            let told = explain_with(folder.path(), &[json, &["--path", "/deals", "-"]].concat(), token);
            assert!(
                !told.out.contains(signature) && !told.err.contains(signature),
                "{}{}",
                told.out,
                told.err
            );
        }
    }
}

/// Opens the store like a gate, which owns the file as long as this lives.
async fn gate(folder: &Path, created: i64) -> (Store, Arc<EventLog>) {
    let store = Store::open(&folder.join("gate.db"), Now::at_millis(created * 1000)).unwrap();
    let log = EventLog::start(store.clone(), Arc::new(Revocations::new(None))).await;
    (store, log.unwrap())
}

async fn publish(log: &Arc<EventLog>, json: &str) {
    let hour = Duration::from_secs(3600);
    let issuers = [EventIssuer { issuer: ISSUER.into(), leeway: hour, max_lifetime: 24 * hour }];
    let now = Timestamp::from_secs(NOW);
    let events = parse::events(json.as_bytes(), &issuers, now).unwrap();
    log.publish(events, EventSource::Admin, Now { wall: now, ..Now::read() }).await.unwrap();
}

#[tokio::test]
async fn the_store_is_read_beside_the_gate_that_uses_it() {
    let folder = folder();
    let here = folder.path();
    let good = token(&claims(json!({})));
    let (store, log) = gate(here, NOW - 3600).await;
    let told = explain(here, &good);
    assert_eq!((told.code, told.out.lines().last()), (Some(0), Some("allowed")), "{}{}", told.out, told.err);
    assert!(
        line(&told, "idle")
            .ends_with("not used since it was issued, 1m ago, at 2027-01-15T07:59:00.000Z; idle_timeout 5m")
    );

    let later = ["--at", "1800000270", "--path", "/deals", &good];
    assert_eq!(explain_with(here, &later, "").out.lines().last(), Some("denied: idle"));
    let at = Timestamp::from_secs;
    let row = SessionRow {
        token: TokenKey::new(ISSUER, "j"),
        issuer: ISSUER.into(),
        subject: None,
        client: None,
        issued_at: at(NOW - 60),
        first_used_at: at(NOW),
        last_used_at: at(NOW),
        last_used_monotonic: Monotonic::now(),
        expires_at: at(NOW + 3600),
        names: None,
    };
    store.save_sessions(vec![row], Vec::new()).await.unwrap();
    let told = explain_with(here, &later, "");
    assert!(line(&told, "idle").contains("last used 4m30s ago, at 2027-01-15T08:00:00.000Z"), "{}", told.out);
    let too_late = explain_with(here, &["--at", "1800000301", "--path", "/deals", &good], "");
    assert!(line(&too_late, "idle").starts_with("FAIL"), "{}", too_late.out);
    assert!(line(&too_late, "idle").contains("last used 5m1s ago"), "{}", too_late.out);

    publish(&log, &format!(r#"{{"type":"role-changed","subject":"alice","at":{}}}"#, NOW - 10)).await;
    let told = explain(here, &good);
    assert_eq!((told.code, told.out.lines().last()), (Some(1), Some("denied: role_changed")), "{}", told.err);
    assert!(line(&told, "revocation").contains("2027-01-15T07:59:50.000Z: the roles of its subject changed"));
    // The gate has kept its lock and can still write.
    assert!(matches!(Store::open(&here.join("gate.db"), Now::read()), Err(OpenError::InUse(_))));
    publish(&log, r#"{"type":"token-revoked","jti":"j"}"#).await;
    assert_eq!(explain(here, &good).out.lines().last(), Some("denied: token_revoked"));

    drop((store, log));
    let files = || {
        let mut names: Vec<_> =
            std::fs::read_dir(here).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = (files(), std::fs::read(here.join("gate.db")).unwrap());
    assert_eq!(explain(here, &good).out.lines().last(), Some("denied: token_revoked"), "without a gate");
    assert_eq!((files(), std::fs::read(here.join("gate.db")).unwrap()), before, "nothing was touched");
}

#[tokio::test]
async fn a_young_store_refuses_what_is_older_and_an_empty_file_is_none() {
    let folder = folder();
    let good = token(&claims(json!({})));
    std::fs::write(folder.path().join("gate.db"), "").unwrap();
    let told = explain(folder.path(), &good);
    assert!(line(&told, "revocation").contains("no store yet"), "{}", told.out);
    let held = gate(folder.path(), NOW - 30).await;
    let told = explain(folder.path(), &good);
    assert_eq!(told.out.lines().last(), Some("denied: before_state"), "{}", told.err);
    drop(held);
}

#[tokio::test]
async fn keys_that_the_gate_kept_serve_while_the_issuer_is_down() {
    let folder = folder();
    let token = token(&claims(json!({"iss": "https://down.example.com/"})));
    let (store, log) = gate(folder.path(), NOW - 3600).await;
    let jwks = br#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let now = Timestamp::now();
    let loaded = portcullis::config::load(&folder.path().join("portcullis.toml")).unwrap();
    let down = loaded.settings.issuers.iter().find(|issuer| issuer.keys.issuer.contains("down")).unwrap();
    let kept = Now { wall: now, monotonic: Monotonic::now() };
    let of = (&down.keys.issuer[..], &down.keys.provenance()[..]);
    store.save_key_set((of.0, "another"), jwks, kept).await.unwrap();
    let told = explain_with(folder.path(), &["--at", &now.to_string(), "--path", "/deals", &token], "");
    assert!(line(&told, "key").starts_with("FAIL"), "kept of another source: {}", told.out);
    store.save_key_set(of, jwks, kept).await.unwrap();
    let told = explain_with(folder.path(), &["--at", &now.to_string(), "--path", "/deals", &token], "");
    assert!(told.err.contains("using the keys that were fetched at"), "{}", told.err);
    assert!(line(&told, "key").starts_with("ok"), "{}", told.out);
    assert!(line(&told, "signature").starts_with("FAIL"), "{}", told.out);
    drop((store, log));
}

/// Everything that a gate needs and a verdict does not: none of these variables and files exists.
const ELSEWHERE: &str = r#"
[server]
listen = ["127.0.0.1:0"]
[server.tls]
certificate = "absent/server.pem"
private_key = "absent/server.key"
client_ca = "absent/clients.pem"
[[upstreams]]
name = "api"
url = "https://127.0.0.1:3000"
ca = "absent/upstream.pem"
client_certificate = "absent/client.pem"
client_key = "absent/client.key"
[[issuers]]
issuer = "https://idp.example.com/"
audiences = ["api"]
algorithms = ["HS256"]
secret = { file = "issuer.secret" }
[[issuers]]
issuer = "https://secret.example.com/"
audiences = ["api"]
algorithms = ["HS512"]
secret = { env = "PORTCULLIS_TEST_ABSENT" }
[[issuers]]
issuer = "https://file.example.com/"
audiences = ["api"]
jwks_file = "absent/keys.json"
[[issuers]]
issuer = "https://private.example.com/"
audiences = ["api"]
jwks_url = "https://127.0.0.1:1/jwks"
ca = "absent/idp.pem"
[[event_transmitters]]
name = "idp"
issuer = "https://idp.example.com/"
audience = "gate"
jwks_file = "absent/transmitter.json"
subject_issuer = "https://idp.example.com/"
[state]
path = "gate.db"
password = { file = "absent/redis" }
[admin]
listen = "127.0.0.1:0"
[admin.tls]
certificate = "absent/admin.pem"
private_key = "absent/admin.key"
[[admin.tokens]]
name = "ops"
secret = { env = "PORTCULLIS_TEST_ABSENT" }
permissions = ["events"]
[[admin.tokens]]
name = "dev"
secret = { file = "absent/dev" }
permissions = ["sessions"]
[[routes]]
path = "/deals/{*rest}"
upstream = "api"
scopes = ["read:deals"]
"#;

#[test]
fn only_what_a_token_is_judged_by_has_to_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let configure = |text: &str| std::fs::write(folder.path().join("portcullis.toml"), text).unwrap();
    configure(ELSEWHERE);
    let secret = folder.path().join("issuer.secret");
    std::fs::write(&secret, SECRET).unwrap();
    let good = token(&claims(json!({})));
    let told = explain(folder.path(), &good);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{}", told.out);
    assert_eq!(explain(folder.path(), &format!("{good}x")).code, Some(1));
    assert_eq!(explain(folder.path(), "garbage").code, Some(1), "it names no issuer");
    let stranger = token(&claims(json!({"iss": "https://evil.example.com/"})));
    assert!(explain(folder.path(), &stranger).out.contains("unknown_issuer"));

    // The gate itself needs all of it.
    let check = |folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["check", "--config", "portcullis.toml"]).current_dir(folder).output().unwrap()
    };
    let refused = check(folder.path());
    assert_eq!(refused.status.code(), Some(2));
    let problems = String::from_utf8(refused.stderr).unwrap();
    for absent in [
        "server.pem",
        "client.key",
        "PORTCULLIS_TEST_ABSENT",
        "keys.json",
        "idp.pem",
        "transmitter.json",
        "redis",
        "admin.key",
        "dev",
    ] {
        assert!(problems.contains(absent), "{absent} in {problems}");
    }

    // Of its own issuer, everything has to be there.
    for (issuer, missing) in [
        ("https://secret.example.com/", "PORTCULLIS_TEST_ABSENT"),
        ("https://file.example.com/", "absent/keys.json"),
        ("https://private.example.com/", "absent/idp.pem"),
    ] {
        let told = explain(folder.path(), &token(&claims(json!({"iss": issuer}))));
        assert_eq!(told.code, Some(2), "{issuer}: {}", told.out);
        assert!(told.err.contains(missing) && !told.err.contains("server.pem"), "{}", told.err);
    }
    std::fs::remove_file(&secret).unwrap();
    let told = explain(folder.path(), &good);
    assert!(told.code == Some(2) && told.err.contains("issuer.secret"), "{}", told.err);

    // A mistake in the form is one, wherever it is.
    std::fs::write(&secret, SECRET).unwrap();
    configure(&ELSEWHERE.replace("permissions = [\"events\"]", "permisions = [\"events\"]"));
    let told = explain(folder.path(), &good);
    assert!(told.code == Some(2) && told.err.contains("permisions"), "{}", told.err);
}
