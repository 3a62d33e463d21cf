//! The files of config/examples: `check` accepts each unchanged, and a gate with it judges tokens as its
//! provider issues them. Only addresses, key sets and the address of Redis are replaced.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use testkit::eventually;
use testkit::gate::{Gate, Outcome, binary, path_text, run_to_end};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::redis_server::RedisServer;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::{Issuer, Signer};
use testkit::tools::root;

use crate::issuers::{CLUSTER, data, token};

/// All examples; a file that is not listed here fails a test.
const EXAMPLES: [&str; 9] =
    ["auth0", "authority", "cognito", "entra", "fleet", "keycloak", "kubernetes", "mcp", "okta"];

/// The secrets that the examples take from the environment.
pub const SECRETS: [(&str, &str); 3] = [
    ("PORTCULLIS_ADMIN_TOKEN", ADMIN_TOKEN),
    ("ENTRA_SCIM_TOKEN", "scim-secret-of-the-tests-0123456789"),
    ("REDIS_PASSWORD", "secret-of-redis"),
];

/// An example, the token shapes it is for, how they differ from the provider's documents, and requests with a
/// different result than the shapes say: the token's name, the method, the decision.
type Provider =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [[&'static str; 3]]);

const PROVIDERS: [Provider; 6] = [
    (
        "keycloak",
        "keycloak",
        &[("case writer", "editor")],
        &[
            ["an access token", "DELETE", "allow/none"],
            ["of a service account without client roles", "GET", "deny/insufficient_role"],
        ],
    ),
    (
        "entra",
        "entra-v2",
        &[],
        &[
            ["of a user", "POST", "allow/none"],
            ["of an application for itself", "POST", "deny/insufficient_scope"],
        ],
    ),
    ("okta", "okta", &[], &[["of a user", "POST", "deny/insufficient_scope"]]),
    (
        "auth0",
        "auth0",
        &[("read:patients", "read:deals"), ("read:admin", "write:deals")],
        &[
            ["of a user, in Auth0's own profile", "POST", "allow/none"],
            ["of a machine", "POST", "deny/insufficient_scope"],
        ],
    ),
    (
        "cognito",
        "cognito",
        &[("resourceserver.1/appclient2", "resourceserver.1/deals.read")],
        &[["an access token", "PUT", "deny/insufficient_scope"]],
    ),
    ("kubernetes", "kubernetes", &[], &[["a projected token", "POST", "deny/claim_condition"]]),
];

fn example(name: &str) -> String {
    fs::read_to_string(root().join(format!("config/examples/{name}.toml"))).unwrap()
}

/// The tables of a configuration, each with its header.
fn tables(text: &str) -> Vec<(String, Vec<String>)> {
    let mut tables = vec![(String::new(), Vec::new())];
    for line in text.lines() {
        match line.split('#').next().unwrap_or_default().trim() {
            header if header.starts_with('[') => tables.push((header.to_owned(), Vec::new())),
            _ => tables.last_mut().unwrap().1.push(line.to_owned()),
        }
    }
    tables
}

/// A configuration with free ports, keys in `keys.json`, and these lines of `[state]` in place of the address of Redis.
pub fn settings(text: &str, upstream: &RawUpstream, keys: &Value, state: &str) -> Settings {
    let mut settings = Settings::tls();
    settings.file("keys.json", keys.to_string());
    for (header, lines) in tables(text) {
        let of_redis = ["url", "username", "password", "ca"];
        let kept = lines.iter().filter(|line| {
            let key = line.split([' ', '=']).next().unwrap_or_default();
            key != "listen" && !(header == "[state]" && of_redis.contains(&key))
        });
        let own =
            kept.map(|line| match (header.as_str(), line.split([' ', '=']).next().unwrap_or_default()) {
                ("[[upstreams]]", "url") => format!("url = \"{}\"", upstream.url()),
                (_, "discovery" | "kubernetes" | "jwks_url") => "jwks_file = \"keys.json\"".to_owned(),
                _ => line.clone(),
            });
        let lines = own.collect::<Vec<_>>().join("\n");
        settings = match header.as_str() {
            "[server]" => settings.server(&lines),
            "[server.tls]" => settings.server_tls(&lines),
            "[server.limits]" => settings.limits(&lines),
            "[telemetry]" => settings.telemetry(&lines),
            "[state]" => settings.toml(&format!("[state]\n{lines}\n{state}\non_empty = \"trust\"")),
            "[admin]" => settings.toml(&format!("[admin]\nlisten = \"127.0.0.1:0\"\n{lines}")),
            _ => settings.toml(&format!("{header}\n{lines}")),
        };
    }
    // What waits for load balancers in production only delays the end of a test.
    settings.server("shutdown_delay = \"0s\"")
}

/// Launches a gate with the secrets of the examples.
pub fn launch(settings: &Settings) -> Gate {
    let gate = Gate::launch_with(settings, |command| {
        command.envs(SECRETS);
    });
    gate.wait_until_ready();
    gate
}

/// Runs a command of the binary against a gate.
fn operate(gate: &Gate, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(binary());
    command.args(arguments).envs(SECRETS).env("PORTCULLIS_ADMIN_URL", format!("http://{}", gate.admin));
    let outcome = run_to_end(&mut command);
    assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.err);
    outcome
}

#[test]
fn every_example_is_a_configuration_that_check_takes_as_it_is() {
    let listed = fs::read_dir(root().join("config/examples")).unwrap();
    let there: BTreeSet<String> = listed
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|file| file.strip_suffix(".toml").map(str::to_owned))
        .collect();
    assert_eq!(there, EXAMPLES.map(str::to_owned).into(), "the files that this module knows");
    let settings = Settings::tls();
    let account = settings.folder().join("account");
    fs::create_dir(&account).unwrap();
    fs::copy(settings.folder().join("ca.pem"), account.join("ca.crt")).unwrap();
    fs::write(account.join("token"), "a.b.c").unwrap();
    settings.file("redis-ca.pem", Authority::new().certificate_pem());
    for name in EXAMPLES {
        let in_a_pod = "kubernetes = true\nkubernetes_path = \"account\" #";
        let path = settings.file("gate.toml", example(name).replace("kubernetes = true", in_a_pod));
        let arguments = ["check", "--config", path_text(&path)];
        let outcome = run_to_end(Command::new(binary()).args(arguments).envs(SECRETS));
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{name}: nothing to warn of");
        assert!(outcome.out.contains(if name == "mcp" { "/mcp" } else { "/deals/{*rest}" }), "{name}");
        assert_eq!(outcome.out.contains(CLUSTER), name == "kubernetes", "{name}: {}", outcome.out);
    }
}

#[test]
fn tokens_of_the_shapes_that_providers_document_are_judged_by_their_examples() {
    for (name, shapes, changes, rows) in PROVIDERS {
        let upstream = RawUpstream::start();
        let signer = Signer::new("RS256", "provider-1");
        let gate = launch(&settings(&example(name), &upstream, &json!({"keys": [signer.jwk()]}), ""));
        let changed = changes
            .iter()
            .fold(data(shapes)["tokens"].to_string(), |text, (from, to)| text.replace(from, to));
        let tokens: Vec<Value> = serde_json::from_str(&changed).unwrap();
        let decide = |shape: &Value, method: &str| {
            let token = token(&signer, shape);
            gate.decision(|| gate.request(method, "/deals/7").token(&token).send()).1
        };
        let named =
            |row: &[&str; 3], shape: &Value, method: &str| shape["name"] == row[0] && row[1] == method;
        for shape in &tokens {
            let expected = rows
                .iter()
                .find(|row| named(row, shape, "GET"))
                .map_or_else(|| shape["gets"].as_str().unwrap(), |row| row[2]);
            assert_eq!(decide(shape, "GET"), expected, "{name}, {}", shape["name"]);
        }
        for [shape, method, expected] in rows {
            let shape = tokens.iter().find(|it| it["name"] == *shape).unwrap();
            assert_eq!(decide(shape, method), *expected, "{name}, {}: {method}", shape["name"]);
        }
        assert_eq!(gate.get("/deals/7").send().status(), 401, "{name}: without a token");
        if name == "keycloak" {
            decide(&tokens[0], "GET");
            assert_eq!(upstream.last().field("x-auth-email").as_deref(), Some("jane@example.com"));
            assert_eq!(upstream.last().field("x-auth-client").as_deref(), Some("deals-web"));
        }
        if name != "kubernetes" {
            assert_eq!(gate.get("/health").send().status(), 200, "{name}");
        }
    }
}

#[test]
fn gates_of_the_fleet_s_example_share_what_was_revoked() {
    let (upstream, redis) = (RawUpstream::start(), RedisServer::start());
    let issuer = Issuer {
        audience: "https://api.example.com".to_owned(),
        ..Issuer::named("https://idp.example.com/")
    };
    let state = format!("url = \"{}\"", redis.url());
    let start = || launch(&settings(&example("fleet"), &upstream, &issuer.jwks(), &state));
    let (first, second) = (start(), start());
    let token = issuer.token().claim("scope", "read:deals").claim("sub", "alice").build();
    let decide =
        |gate: &Gate, method: &str| gate.decision(|| gate.request(method, "/deals/7").token(&token).send()).1;
    assert_eq!(decide(&first, "GET"), "allow/none");
    assert_eq!(decide(&second, "GET"), "allow/none");
    assert_eq!(decide(&second, "POST"), "deny/insufficient_scope");
    operate(&first, &["event", "subject-revoked", "--subject", "alice"]);
    assert_eq!(decide(&first, "GET"), "deny/subject_revoked");
    eventually("the other gate denies the token", || {
        (second.get("/deals/7").token(&token).send().status() == 401).then_some(())
    });
}

#[test]
fn the_authority_s_example_issues_tokens_that_end_when_a_role_is_taken_away() {
    let upstream = RawUpstream::start();
    let gate = launch(&settings(&example("authority"), &upstream, &json!({"keys": []}), ""));
    operate(&gate, &["user", "create", "alice", "--role", "case-reader"]);
    let made = ["credential", "create", "--name", "R", "--owner", "alice", "--role", "case-reader"];
    let made = operate(&gate, &[&made[..], &["--scope", "read:deals", "--json"]].concat());
    let made: Value = serde_json::from_str(&made.out).unwrap();
    let ask = || {
        let [id, secret] = ["client_id", "client_secret"].map(|name| made[name].as_str().unwrap());
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let request = gate.request("POST", "/oauth/token").body(form);
        request.field("Content-Type", "application/x-www-form-urlencoded").send()
    };
    let token = ask().json()["access_token"].as_str().unwrap().to_owned();
    let decide = |method: &str| gate.decision(|| gate.request(method, "/deals/7").token(&token).send()).1;
    assert_eq!(decide("GET"), "allow/none");
    assert_eq!(upstream.last().field("x-auth-roles").as_deref(), Some("case-reader"));
    assert_eq!(decide("POST"), "deny/insufficient_scope");
    operate(&gate, &["user", "roles", "alice", "--role", "case-writer"]);
    assert_eq!(decide("GET"), "deny/role_changed");
    assert_eq!(ask().json()["error"], "unauthorized_client");
}

#[test]
fn the_example_of_an_mcp_server_leads_clients_to_a_token_and_denies_what_no_route_names() {
    let upstream = RawUpstream::start();
    let resource = "https://api.example.com/mcp";
    let issuer = Issuer { audience: resource.to_owned(), ..Issuer::named("https://idp.example.com/") };
    let gate = launch(&settings(&example("mcp"), &upstream, &issuer.jwks(), ""));
    let metadata = gate.get("/.well-known/oauth-protected-resource/mcp").send().json();
    assert_eq!(metadata["resource"], resource);
    assert_eq!(metadata["authorization_servers"], json!(["https://idp.example.com/"]));
    assert_eq!(metadata["scopes_supported"], json!(["deals:read", "deals:write"]));
    let call = |tool: &str, origin: Option<&str>| {
        let request = gate.request("POST", "/mcp").field("MCP-Protocol-Version", "2026-07-28");
        let request = request.field("Mcp-Method", "tools/call").field("Mcp-Name", tool).body("{}");
        origin.map_or(request.clone(), |origin| request.field("Origin", origin))
    };
    let challenge = call("read_deals", None).send();
    assert_eq!(challenge.status(), 401);
    assert!(challenge.field("www-authenticate").unwrap().contains("resource_metadata="));
    let token = issuer.token().claim("scope", "deals:read").build();
    let own_page = Some("https://app.example.com");
    for (tool, origin, expected) in [
        ("read_deals", None, "allow/none"),
        ("read_deals", own_page, "allow/none"),
        ("read_deals", Some("https://evil.example.com"), "deny/bad_origin"),
        ("close_deal", None, "deny/insufficient_scope"),
        ("drop_deals", None, "deny/no_route"),
    ] {
        let decided = gate.decision(|| call(tool, origin).token(&token).send()).1;
        assert_eq!(decided, expected, "{tool} {origin:?}");
    }
    assert_eq!(upstream.last().field("authorization"), None, "the server never sees the token");
}
