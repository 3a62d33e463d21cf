//! The blocks of docs/recipes.md and docs/migration.md: `check` accepts each of them together with what it
//! omits, and a gate that replaces another product's check judges tokens as the page says.

use std::process::Command;

use serde_json::{Value, json};

use testkit::documents::{Block, block, blocks, commands, document};
use testkit::gate::{Gate, binary, path_text, run_to_end};
use testkit::now;
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer};

use crate::examples::{SECRETS, launch, settings};

/// What a recipe omits: tables, by a text that is present if they are.
const BESIDE: [(&str, &str); 5] = [
    ("[server]", "[server]\nlisten = [\"127.0.0.1:8443\"]"),
    ("name = \"api\"", "[[upstreams]]\nname = \"api\"\nurl = \"http://127.0.0.1:3000\""),
    (
        "[[issuers]]",
        "[[issuers]]\nissuer = \"https://idp.example.com/\"\naudiences = [\"https://api.example.com\"]\ndiscovery = true",
    ),
    ("[[routes]]", "[[routes]]\npath = \"/{*rest}\"\nupstream = \"api\""),
    ("allow_plaintext", "[server.tls]\ncertificate = \"server.pem\"\nprivate_key = \"server.key\""),
];

/// A block with what it omits.
fn whole(text: &str) -> String {
    let is_there =
        |mark: &str| text.contains(mark) || mark == "allow_plaintext" && text.contains("[server.tls]");
    let missing = BESIDE.iter().filter(|(mark, _)| !is_there(mark)).map(|(_, table)| *table);
    std::iter::once(text).chain(missing).collect::<Vec<_>>().join("\n")
}

/// A folder with all files that the blocks name.
fn folder() -> Settings {
    let settings = Settings::tls();
    let client = Authority::new();
    let gate = client.client("gate");
    settings.file("clients-ca.pem", client.certificate_pem());
    settings.file("internal-ca.pem", client.certificate_pem());
    settings.file("gate.pem", &gate.chain);
    settings.file("gate.key", &gate.key);
    let account = settings.folder().join("account");
    std::fs::create_dir(&account).unwrap();
    std::fs::copy(settings.folder().join("ca.pem"), account.join("ca.crt")).unwrap();
    std::fs::write(account.join("token"), "a.b.c").unwrap();
    settings
}

/// Checks every configuration on a page, and returns their number.
fn check_all(page: &str) -> usize {
    let settings = folder();
    let is_configuration = |block: &Block| block.language == "toml";
    let found: Vec<Block> = blocks(&document(page)).into_iter().filter(is_configuration).collect();
    for block in &found {
        let path = settings.file("gate.toml", whole(&block.text));
        let arguments = ["check", "--config", path_text(&path)];
        let outcome = run_to_end(Command::new(binary()).args(arguments).envs(SECRETS));
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{page}:{}", block.line);
    }
    found.len()
}

/// Runs docs/recipes.md: proxy_protocol = "v2"
/// Runs docs/recipes.md: trusted_fields = "x-forwarded"
/// Runs docs/recipes.md: unix:/run/api/api.sock
/// Runs docs/recipes.md: name = "pool"
/// Runs docs/recipes.md: name = "small"
/// Runs docs/recipes.md: name = "orders"
/// Runs docs/recipes.md: client_ca = "clients-ca.pem"
/// Runs docs/recipes.md: name = "grpc"
/// Runs docs/recipes.md: path = "/notifications"
/// Runs docs/recipes.md: websocket_protocol = "bearer"
/// Runs docs/recipes.md: [routes.cors]
/// Runs docs/recipes.md: kubernetes = true
/// Runs docs/recipes.md: https://machines.example.com/
/// Runs docs/recipes.md: https://partners.example.com/
/// Runs docs/recipes.md: name = "back-office"
/// Runs docs/recipes.md: [[logout]]
#[test]
fn every_recipe_is_a_configuration_that_check_takes() {
    assert_eq!(check_all("docs/recipes.md"), 16);
}

/// Runs docs/recipes.md: "type": "subject-revoked"
#[test]
fn an_application_revokes_with_the_command_of_the_recipe() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let text = whole(&block("docs/recipes.md", "name = \"back-office\""));
    let gate = launch(&settings(&text, &upstream, &issuer.jwks(), ""));
    let token = issuer.good();
    assert_eq!(decided(&gate, "GET", "/", &token), "allow/none");
    let script = block("docs/recipes.md", "\"type\": \"subject-revoked\"").replacen("$ ", "", 1);
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).envs(SECRETS);
    let outcome = run_to_end(shell.env("PORTCULLIS_ADMIN_URL", format!("http://{}", gate.admin)));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(decided(&gate, "GET", "/", &token), "deny/subject_revoked");
}

fn decided(gate: &Gate, method: &str, path: &str, token: &str) -> String {
    gate.decision(|| gate.request(method, path).token(token).send()).1
}

/// A request: how its token's claims differ from valid ones (`null` removes a claim), method, path, decision.
type Row = (Value, &'static str, &'static str, &'static str);

/// The requests for every product.
fn rows_of_all() -> Vec<Row> {
    vec![
        (json!({"exp": null}), "GET", "/deals/7", "deny/missing_claim"),
        (json!({"iat": now() - 600, "exp": now() - 120}), "GET", "/deals/7", "deny/expired"),
        (json!({"aud": "https://other.example.com"}), "GET", "/deals/7", "deny/wrong_audience"),
        (json!({"iss": "https://other.example.com/"}), "GET", "/deals/7", "deny/unknown_issuer"),
        (json!({"exp": now() + 90_000}), "GET", "/deals/7", "deny/too_long_lived"),
    ]
}

/// Sends the tokens of the rows to a gate with the block, and returns the gate and the upstream.
fn judge(key: &str, algorithm: &'static str, rows: Vec<Row>) -> (Gate, RawUpstream) {
    let upstream = RawUpstream::start();
    let issuer = Issuer::with("https://idp.example.com/", vec![Signer::new(algorithm, "key-1")]);
    let text = block("docs/migration.md", key).replace("proxy_protocol = \"v2\"", "");
    let gate = launch(&settings(&text, &upstream, &issuer.jwks(), ""));
    for (claims, method, path, expected) in rows_of_all().into_iter().chain(rows) {
        let claims = claims.as_object().unwrap().iter();
        let token = claims.fold(issuer.token(), |token, (name, value)| match value {
            Value::Null => token.without(name),
            value => token.claim(name, value.clone()),
        });
        assert_eq!(decided(&gate, method, path, &token.build()), expected, "{key}: {method} {path}");
    }
    assert_eq!(gate.get("/deals/7").send().status(), 401, "{key}: without a token");
    (gate, upstream)
}

#[test]
fn every_configuration_of_the_migration_is_one_that_check_takes() {
    assert_eq!(check_all("docs/migration.md"), 6);
}

/// Runs docs/migration.md: # in place of auth_jwt
#[test]
fn the_gate_judges_as_nginx_did() {
    let rows = vec![
        (json!({"department": "sales"}), "GET", "/deals/7", "allow/none"),
        (json!({"department": "sales"}), "DELETE", "/deals", "allow/none"),
        (json!({"department": "legal"}), "GET", "/deals/7", "deny/claim_condition"),
        (json!({"department": "sales"}), "GET", "/other", "deny/no_route"),
    ];
    let (gate, upstream) = judge("# in place of auth_jwt", "RS256", rows);
    assert_eq!(upstream.last().field("x-user").as_deref(), Some("alice"));
    assert_eq!(gate.get("/health").field("X-User", "mallory").send().status(), 200);
    assert_eq!(upstream.last().field("x-user"), None, "clients cannot set it");
}

/// Runs docs/migration.md: # in place of jwt_authn and RBAC
#[test]
fn the_gate_judges_as_envoy_did() {
    let rows = vec![
        (json!({"roles": ["guest"]}), "GET", "/deals/7", "deny/insufficient_role"),
        (json!({"roles": ["editor"]}), "POST", "/deals/7", "deny/no_route"),
        // Within the leeway, which is Envoy's default.
        (
            json!({"roles": ["reader"], "iat": now() - 600, "exp": now() - 20}),
            "GET",
            "/deals/7",
            "allow/none",
        ),
        (json!({"roles": ["reader"]}), "GET", "/deals/7", "allow/none"),
    ];
    let (_gate, upstream) = judge("# in place of jwt_authn and RBAC", "ES256", rows);
    assert_eq!(upstream.last().field("x-jwt-sub").as_deref(), Some("alice"));
    assert_eq!(upstream.last().field("authorization"), None);
}

/// Runs docs/migration.md: # in place of oauth2-proxy with bearer tokens
#[test]
fn the_gate_judges_bearer_tokens_as_oauth2_proxy_did() {
    let (good, bad) = ("jane@example.com", "jane@example.com.evil.test");
    let rows = vec![
        (json!({"groups": ["staff"], "email": bad}), "GET", "/deals/7", "deny/claim_condition"),
        (json!({"groups": ["guests"], "email": good}), "GET", "/deals/7", "deny/insufficient_role"),
        (json!({"groups": ["staff"], "email": good}), "GET", "/deals/7", "allow/none"),
    ];
    let (gate, upstream) = judge("# in place of oauth2-proxy", "RS256", rows);
    assert_eq!(upstream.last().field("x-forwarded-email").as_deref(), Some(good));
    assert_eq!(upstream.last().field("x-forwarded-groups").as_deref(), Some("staff"));
    assert_eq!(gate.get("/health").send().status(), 200);
}

/// Runs docs/migration.md: # in place of Kong's jwt plugin
#[test]
fn the_gate_judges_as_kong_did() {
    let rows = vec![
        (json!({"roles": ["partner"], "exp": now() + 7200}), "GET", "/deals/7", "deny/too_long_lived"),
        (json!({"roles": ["guest"]}), "GET", "/deals/7", "deny/insufficient_role"),
        (json!({"roles": ["partner"]}), "POST", "/deals", "allow/none"),
    ];
    let (_gate, upstream) = judge("# in place of Kong", "ES256", rows);
    assert_eq!(upstream.last().field("x-consumer-username").as_deref(), Some("app"));
}

/// Runs docs/migration.md: # in place of jwt_verify
#[test]
fn the_gate_judges_as_haproxy_did() {
    let rows = vec![
        (json!({"scope": "read:deals"}), "GET", "/deals/7", "allow/none"),
        (json!({"scope": "read:deals-of-others"}), "GET", "/deals/7", "deny/insufficient_scope"),
        (json!({"aud": ["https://api.example.com", "account"]}), "GET", "/deals/7", "allow/none"),
    ];
    judge("# in place of jwt_verify", "RS256", rows);
}

/// Runs docs/migration.md: mode = "shadow"
/// Runs docs/migration.md: portcullis state init
#[test]
fn the_roll_out_begins_in_shadow_with_tokens_from_before() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let text = block("docs/migration.md", "mode = \"shadow\"");
    let settings = settings(&text, &upstream, &issuer.jwks(), "").toml("[state]\npath = \"portcullis.db\"");
    let path = settings.write();
    std::fs::copy(&path, settings.folder().join("gate.toml")).unwrap();
    let [init] = &commands(&block("docs/migration.md", "portcullis state init"))[..] else {
        panic!("one line")
    };
    let mut arguments = init.split(' ');
    assert_eq!(arguments.next(), Some("portcullis"));
    let made = run_to_end(Command::new(binary()).args(arguments).current_dir(settings.folder()));
    assert_eq!(made.code, 0, "{}", made.err);
    let gate = launch(&settings);
    let elsewhere = issuer.token().claim("aud", "https://other.example.com").build();
    assert_eq!(decided(&gate, "GET", "/deals/7", &elsewhere), "shadow_deny/wrong_audience");
    assert_eq!(upstream.last().field("x-auth-subject"), None, "no identity of a token that is not good");
    let older = issuer.token().claim("iat", now() - 600).claim("sub", "bob").build();
    assert_eq!(decided(&gate, "GET", "/deals/7", &older), "allow/none");
    assert_eq!(upstream.last().field("x-auth-subject").as_deref(), Some("bob"));
    let counted = [("decision", "shadow_deny"), ("reason", "wrong_audience")];
    assert!((gate.metrics().sum("portcullis_decisions_total", &counted) - 1.0).abs() < 0.1);
}
