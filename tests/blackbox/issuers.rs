//! The blocks of docs/issuers.md, and tokens as providers document them: valid ones pass, invalid ones are
//! rejected for the reason in the data, and the upstream receives what the block promises.

use std::fs;

use serde_json::{Map, Value, json};

use testkit::documents::block;
use testkit::gate::{Gate, check};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Signer, compact};
use testkit::{b64, now};

/// Each provider's data, and the block about it.
const PROVIDERS: [(&str, &str); 12] = [
    ("kubernetes", "kubernetes = true"),
    ("github", "issuer = \"https://token.actions.githubusercontent.com\""),
    ("gitlab", "issuer = \"https://gitlab.com\""),
    ("spiffe", "spiffe_trust_domain = \"example.org\""),
    ("cognito", "audience = \"client_id\""),
    ("keycloak", "issuer = \"https://sso.example.com/realms/main\""),
    ("entra-v2", "client = \"azp\"\ntenant = \"tid\""),
    ("entra-v1", "client = \"appid\""),
    ("okta", "client = \"cid\""),
    ("auth0", "issuer = \"https://tenant.eu.auth0.com/\""),
    ("google", "issuer = \"https://accounts.google.com\""),
    ("zitadel", "issuer = \"https://instance.zitadel.cloud\""),
];

/// The issuer of the cluster.
pub const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";

/// The documented data of a provider: its algorithm, and tokens with their expected results.
pub fn data(name: &str) -> Value {
    let path = testkit::tools::root().join(format!("tests/data/issuers/{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs docs/issuers.md: kubernetes = true
/// Runs docs/issuers.md: issuer = "https://token.actions.githubusercontent.com"
/// Runs docs/issuers.md: issuer = "https://gitlab.com"
/// Runs docs/issuers.md: spiffe_trust_domain = "example.org"
/// Runs docs/issuers.md: audience = "client_id"
/// Runs docs/issuers.md: issuer = "https://sso.example.com/realms/main"
/// Runs docs/issuers.md: issuer = "https://login.microsoftonline.com
/// Runs docs/issuers.md: client = "appid"
/// Runs docs/issuers.md: client = "cid"
/// Runs docs/issuers.md: issuer = "https://tenant.eu.auth0.com/"
/// Runs docs/issuers.md: issuer = "https://accounts.google.com"
/// Runs docs/issuers.md: issuer = "https://instance.zitadel.cloud"
#[test]
fn every_block_is_a_configuration_that_the_gate_takes() {
    let mut settings = Settings::tls().upstream("api", "http://127.0.0.1:3000", "").route("/{*rest}", "");
    let account = settings.folder().join("account");
    fs::create_dir(&account).unwrap();
    fs::copy(settings.folder().join("ca.pem"), account.join("ca.crt")).unwrap();
    let part = |json: Value| b64(json.to_string());
    let token = format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(json!({"iss": CLUSTER})));
    fs::write(account.join("token"), token).unwrap();
    for (_, key) in PROVIDERS {
        let written = block("docs/issuers.md", key);
        settings = settings
            .toml(&written.replace("kubernetes = true", "kubernetes = true\nkubernetes_path = \"account\""));
    }
    let outcome = check(&settings);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "and nothing to warn of");
    assert!(outcome.out.contains(CLUSTER), "{}", outcome.out);
}

/// The block with keys from a file instead of the provider.
fn with_keys(written: &str, name: &str) -> String {
    let fetched = ["discovery ", "jwks_url ", "kubernetes "];
    let lines = written.lines().filter(|line| !fetched.iter().any(|key| line.starts_with(key)));
    let issuer = if name == "kubernetes" { format!("issuer = \"{CLUSTER}\"\n") } else { String::new() };
    let head = format!("[[issuers]]\n{issuer}jwks_file = \"keys-{name}.json\"");
    lines.collect::<Vec<_>>().join("\n").replace("[[issuers]]", &head)
}

/// Replaces values such as `"@+300"`, which means in five minutes.
fn dated(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with('@') => json!(now() + text[1..].parse::<i64>().unwrap()),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), dated(value))).collect(),
        other => other.clone(),
    }
}

/// The token of a row, signed now.
pub fn token(signer: &Signer, row: &Value) -> String {
    let mut header =
        Map::from_iter([("alg".to_owned(), json!(signer.alg)), ("kid".to_owned(), json!(signer.kid))]);
    header
        .extend(row["header"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.clone())));
    header.retain(|_, value| !value.is_null());
    let (header, claims) = (Value::Object(header).to_string(), dated(&row["claims"]).to_string());
    compact(signer, signer.alg, header.as_bytes(), claims.as_bytes())
}

#[test]
fn tokens_of_the_shapes_that_providers_document_are_judged_as_the_data_says() {
    let upstream = RawUpstream::start();
    let mut settings = Settings::plaintext().upstream("api", &upstream.url(), "").route("/{*rest}", "");
    let mut providers = Vec::new();
    for (name, key) in PROVIDERS {
        let data = data(name);
        let algorithm = if data["algorithm"] == "ES256" { "ES256" } else { "RS256" };
        let signer = Signer::new(algorithm, &format!("{name}-1"));
        let mut jwk = signer.jwk();
        if name == "spiffe" {
            jwk["use"] = json!("jwt-svid");
            jwk.as_object_mut().unwrap().remove("alg");
        }
        settings.file(&format!("keys-{name}.json"), json!({"keys": [jwk]}).to_string());
        settings = settings.toml(&with_keys(&block("docs/issuers.md", key), name));
        providers.push((name, signer, data));
    }
    let gate = Gate::start(&settings);
    let mut judged = 0;
    for (name, signer, data) in &providers {
        for row in data["tokens"].as_array().unwrap() {
            let token = token(signer, row);
            let decided = gate.decision(|| gate.get("/").token(&token).send()).1;
            assert_eq!(decided, row["gets"].as_str().unwrap(), "{name}, {}: {}", row["name"], row["claims"]);
            for (header, expected) in row["identity"].as_object().into_iter().flatten() {
                let seen = upstream.last().field(header);
                assert_eq!(seen.as_deref(), expected.as_str(), "{name}, {}: {header}", row["name"]);
            }
            judged += 1;
        }
    }
    assert!(judged > 50, "only {judged} tokens");
}
