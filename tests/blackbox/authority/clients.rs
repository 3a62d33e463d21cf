//! Popular OAuth clients, unmodified: curl, and packages from npm and PyPI. Each script makes its own checks
//! and prints their number; `tests/run` installs the packages.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::authority::stage::{App, Stage, part};
use testkit::gate::path_text;
use testkit::tools::{node_modules, python};

/// Runs a script against the stage and returns the number of its checks.
#[track_caller]
fn checks(stage: &Stage, app: &App, program: &Path, script: &str) -> u32 {
    checks_with(stage, app, program, script, &[])
}

/// Like [`checks`], with further environment variables.
#[track_caller]
fn checks_with(stage: &Stage, app: &App, program: &Path, script: &str, more: &[(&str, &str)]) -> u32 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ca = stage.gate.settings.folder().join("ca.pem");
    let output = Command::new(program)
        .arg(root.join("tests").join(script))
        .env("ISSUER", stage.issuer())
        .env("CLIENT_ID", &app.id)
        .env("CLIENT_SECRET", &app.secret)
        .env("ALGORITHM", part(&stage.token(app), 0)["alg"].as_str().unwrap())
        .envs(more.iter().copied())
        .env("NODE_MODULES", node_modules())
        .env("NODE_EXTRA_CA_CERTS", &ca)
        .env("REQUESTS_CA_BUNDLE", &ca)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", program.display()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{out}\n{err}", output.status);
    let last = out.lines().last().unwrap_or_default();
    last.strip_suffix(" checks")
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{script}: {out}\n{err}"))
}

fn curl(stage: &Stage, arguments: &[&str]) -> (u16, String) {
    let ca = stage.gate.settings.folder().join("ca.pem");
    let fixed = ["-sS", "--max-time", "60", "--cacert", path_text(&ca), "-w", "\n%{http_code}"];
    let printed = testkit::tools::run("curl", &[&fixed[..], arguments].concat());
    let (body, code) = printed.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned())
}

#[test]
fn curl_plays_the_story_of_the_robot() {
    let stage = Stage::planned(|plan| plan.authority("token_path = \"/OAuth/Token\""));
    let robot = stage.robot();
    let at = |path: &str| format!("{}{path}", stage.issuer());
    let user = format!("{}:{}", robot.id, robot.secret);
    let (grant, id, secret) = (
        "grant_type=client_credentials",
        format!("client_id={}", robot.id),
        format!("client_secret={}", robot.secret),
    );
    let mut tokens = Vec::new();
    for path in ["/OAuth/Token", "/oauth/token", "/OAUTH/TOKEN"] {
        for arguments in [&["-d", grant, "-d", &id, "-d", &secret][..], &["-d", grant, "-u", &user]] {
            let (status, body) = curl(&stage, &[&[at(path).as_str()][..], arguments].concat());
            assert_eq!(status, 200, "{path} {body}");
            let answer: Value = serde_json::from_str(&body).unwrap();
            tokens.push(format!("Authorization: Bearer {}", answer["access_token"].as_str().unwrap()));
        }
    }
    let cases = at("/cases/7");
    for token in &tokens {
        assert_eq!(curl(&stage, &[&cases, "-H", token]).0, 200, "they live side by side");
    }
    assert_eq!(curl(&stage, &[&cases, "-H", &tokens[0], "-d", "x"]).0, 403, "the robot has one of two roles");
    let roles = |roles: Value| stage.admin("PUT", "/v1/users/ada/roles", &json!({"roles": roles})).status();
    assert_eq!(roles(json!(["case-writer"])), 200);
    for token in &tokens {
        assert_eq!(curl(&stage, &[&cases, "-H", token]).0, 401, "every token on ada's behalf");
    }
    let (status, body) = curl(&stage, &[&at("/oauth/token"), "-d", grant, "-u", &user]);
    assert_eq!((status, body.contains("unauthorized_client")), (400, true), "no role is left: {body}");
    assert_eq!(roles(json!(["case-reader", "auditor"])), 200);
    let (_, body) = curl(&stage, &[&at("/oauth/token"), "-d", grant, "-u", &user]);
    let answer: Value = serde_json::from_str(&body).unwrap();
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(part(token, 1)["roles"], json!(["case-reader"]), "a new role does not come by itself");
    let usage = stage.admin("GET", &format!("/v1/usage?client={}", robot.id), &Value::Null).json();
    let of_cases = usage["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["route"] == "/cases/{*rest}" && item["status"] == 200);
    assert_eq!(of_cases.unwrap()["count"], 6, "which APIs it called: {usage}");
}

/// Holds docs/configuration.md, Settings: authority.tenant_parameter
#[test]
fn curl_plays_the_story_of_the_tenant() {
    let stage = Stage::planned(|plan| {
        plan.authority("tenant_parameter = \"dealtrack_registration_id\"\ntoken_lifetime = \"6s\"")
            .issuer("leeway = \"0s\"")
    });
    stage.user("ada", &[]);
    let desk = stage.credential(&json!({
        "name": "Deal desk", "owner": "ada", "tenant": "acme", "scopes": ["read:deals", "read:activity"],
    }));
    let url = format!("{}/oauth/token", stage.issuer());
    let (id, secret) = (format!("client_id={}", desk.id), format!("client_secret={}", desk.secret));
    let ask = |tenant: &str, scope: &str, grant: &str| {
        let (tenant, scope, grant) = (
            format!("dealtrack_registration_id={tenant}"),
            format!("scope={scope}"),
            format!("grant_type={grant}"),
        );
        let fields = [&id, &secret, &tenant, &scope, &grant];
        let fields = fields.iter().flat_map(|field| ["--data-urlencode", field]);
        let (status, body) = curl(&stage, &[url.as_str()].into_iter().chain(fields).collect::<Vec<_>>());
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, answer) = ask("acme", "read:deals read:activity", "client_credentials");
    assert_eq!(status, 200, "{answer}");
    let members: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(members, ["access_token", "expires_in", "token_type"], "{answer}");
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(6)));
    let token = format!("Authorization: Bearer {}", answer["access_token"].as_str().unwrap());
    let api = |path: &str| curl(&stage, &[&format!("{}{path}", stage.issuer()), "-H", &token]).0;
    assert_eq!(api("/users"), 403);
    for (tenant, scope, grant, status, error) in [
        ("acme", "read:users", "client_credentials", 400, "invalid_scope"),
        ("other", "read:deals", "client_credentials", 401, "invalid_client"),
        ("acme", "read:deals", "password", 400, "unsupported_grant_type"),
    ] {
        let (found, answer) = ask(tenant, scope, grant);
        assert_eq!((found, &answer["error"]), (status, &json!(error)), "{answer}");
    }
    testkit::eventually("the token expires", || (api("/deals") == 401).then_some(()));
}

/// Holds docs/configuration.md, Settings: authority.issuer, .audience, .scopes
#[test]
fn oauth4webapi_finds_nothing_wrong_whatever_signs() {
    for algorithm in ["ES256", "RS256", "EdDSA"] {
        let stage = Stage::planned(|plan| plan.authority(&format!("signing_algorithm = \"{algorithm}\"")));
        let app = stage.robot();
        assert!(checks(&stage, &app, Path::new("node"), "node/oauth4webapi.mjs") >= 60, "{algorithm}");
    }
}

#[test]
fn oauth4webapi_and_openid_client_use_dpop() {
    for nonces in ["off", "required"] {
        let stage = Stage::planned(|plan| plan.toml(&format!("[dpop]\nnonce = \"{nonces}\"")));
        let app = stage.robot();
        let made = checks_with(&stage, &app, Path::new("node"), "node/dpop.mjs", &[("NONCES", nonces)]);
        assert_eq!(made, 53, "{nonces}");
    }
}

#[test]
fn openid_client_works() {
    let stage = Stage::start();
    let app = stage.robot();
    assert_eq!(checks(&stage, &app, Path::new("node"), "node/openid-client.mjs"), 30);
}

#[test]
fn simple_oauth2_works() {
    let stage = Stage::start();
    let app = stage.robot();
    assert_eq!(checks(&stage, &app, Path::new("node"), "node/simple-oauth2.mjs"), 24);
}

#[test]
fn authlib_and_requests_oauthlib_work() {
    let stage = Stage::start();
    let app = stage.robot();
    assert_eq!(checks(&stage, &app, &python(), "python/clients.py"), 37);
}
