//! A client and a server with the SDK of the Model Context Protocol and the gate between them, configured as in
//! docs/policy.md: with the embedded authority as issuer, and with an OpenID provider.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};

use serde_json::{Value, json};
use testkit::documents::block;
use testkit::gate::Gate;
use testkit::settings::Settings;
use testkit::tools::{OpenIdProvider, Running, node_modules, root};

use crate::authority::stage::{App, Plan, Stage};

/// A running script, with its input and output.
struct Story {
    _process: Running,
    commands: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Story {
    /// Starts the server of a script; returns its URL.
    fn start(script: &str, ca: &Path) -> (Self, String) {
        let mut process = Running::start(
            Command::new("node")
                .arg(root().join("tests/node").join(script))
                .env("NODE_MODULES", node_modules())
                .env("NODE_EXTRA_CA_CERTS", ca),
        );
        let (commands, said) = (process.0.stdin.take().unwrap(), process.0.stdout.take().unwrap());
        let mut story = Self { _process: process, commands, said: BufReader::new(said) };
        let url = story.step("serving")["url"].as_str().unwrap().to_owned();
        (story, url)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line
    }

    /// Waits for this step.
    fn step(&mut self, name: &str) -> Value {
        let line = self.line();
        let step: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}, not {name}"));
        assert_eq!(step["step"], name);
        step
    }

    fn tell(&mut self, what: &Value) {
        writeln!(self.commands, "{what}").unwrap();
    }

    /// Runs the scenario, with `end` for what ends the token of the stream; returns the number of checks by the client.
    fn play(mut self, scene: &Value, gate: &Gate, reason: &str, end: impl FnOnce(&Value)) -> u32 {
        self.tell(scene);
        let stream = self.step("listening");
        end(&stream);
        gate.wait_for_metric("the stream is cut", |_| (gate.cuts(reason) > 0.5).then_some(()));
        self.tell(&json!({}));
        self.checks()
    }

    /// The number of checks by the client, which it prints last.
    fn checks(mut self) -> u32 {
        let last = self.line();
        last.trim().strip_suffix(" checks").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{last:?}"))
    }
}

/// The resource and the routes of docs/policy.md, for this gate and this server.
fn policy(base: &str, server: &str) -> String {
    let text = block("docs/policy.md", "[[resources]]\nname = \"mcp\"");
    text.replace("https://api.example.com", base).replace("http://127.0.0.1:3001", server)
}

/// The embedded authority with a credential for the tools, the server, and instructions for its client.
fn embedded(further: &str) -> (Stage, App, Story, Value) {
    let started = std::cell::RefCell::new(None);
    let stage = Stage::planned(|plan: Plan| {
        let (story, server) = Story::start("mcp.mjs", &plan.clone().settings().folder().join("ca.pem"));
        started.replace(Some(story));
        let policy = policy(plan.issuer_name(), &server);
        plan.authority("scopes = [\"deals:read\", \"deals:write\"]")
            .toml(&policy)
            .toml(&format!("{further}\n[streams]\ncheck_interval = \"100ms\""))
    });
    stage.user("ada", &[]);
    let scopes = ["deals:read", "deals:write"];
    let app = stage.credential(&json!({"name": "Agent", "owner": "ada", "scopes": scopes}));
    let scene = json!({
        "url": format!("{}/mcp", stage.issuer()), "issuer": stage.issuer(), "id": app.id, "secret": app.secret,
        "needs": "deals:read", "all": "deals:read deals:write", "widens": true,
    });
    (stage, app, started.take().unwrap(), scene)
}

/// Runs docs/policy.md: [[resources]]
#[test]
fn the_sdk_goes_from_the_first_401_to_a_tool_and_a_revoked_stream_with_the_embedded_authority() {
    let (stage, app, story, scene) = embedded("");
    let checks = story.play(&scene, &stage.gate, "token_revoked", |stream| {
        stage.gate.publish(&json!({"type": "token-revoked", "jti": stream["jti"]}));
    });
    assert_eq!(checks, 29);
    // A token for the resource is good there and nowhere else.
    let form = |resource: &str| app.form(&format!("&resource={resource}"));
    let issued = stage.post("/oauth/token", &form(&format!("{}/mcp", stage.issuer())));
    let token = issued.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(stage.api("/any/x", &token), 401);
    let plain = stage.token(&app);
    assert_eq!(stage.api("/any/x", &plain), 200);
    let discover = stage.gate.request("POST", "/mcp").token(&plain).field("Mcp-Method", "server/discover");
    let answer = discover.field("MCP-Protocol-Version", "2026-07-28").body("{}").send();
    assert_eq!(answer.status(), 401, "issued for the API, and not for the resource");
    for (asked, status, error) in [
        (stage.issuer().to_owned(), 200, Value::Null),
        ("https://other.example.com/mcp".to_owned(), 400, json!("invalid_target")),
        (format!("{}/mcp/", stage.issuer()), 400, json!("invalid_target")),
        (format!("{0}/mcp&resource={0}/mcp", stage.issuer()), 400, json!("invalid_request")),
    ] {
        let answer = stage.post("/oauth/token", &form(&asked));
        assert_eq!((answer.status(), &answer.json()["error"]), (status, &error), "{asked}");
    }
    for method in ["GET", "POST"] {
        let asked = "/oauth/authorize?response_type=code&client_id=x&redirect_uri=https%3A%2F%2Fevil.test%2F";
        let answer = stage.gate.request(method, asked).body("").send();
        assert_eq!((answer.status(), answer.field("location")), (400, None), "{method}");
        assert_eq!(answer.json()["error"], "unsupported_response_type", "{method}");
    }
    assert_eq!(stage.gate.request("PUT", "/oauth/authorize").body("").send().status(), 405);
}

#[test]
fn the_sdk_goes_from_the_first_401_to_a_tool_and_a_revoked_stream_with_an_outside_issuer() {
    let provider = OpenIdProvider::start("ES256");
    let port = testkit::ports::ClaimedPort::new();
    let base = format!("https://{}", port.address);
    let settings = Settings::tls();
    let (story, server) = Story::start("mcp.mjs", &settings.folder().join("ca.pem"));
    // The provider has one scope, and no other is granted.
    let policy = policy(&base, &server).replace("deals:read", "read:deals");
    let settings = settings
        .server(&format!("listen = [\"{}\"]", port.address))
        .admin()
        .toml(&policy)
        .toml(&format!(
            "[[issuers]]\nissuer = \"{}\"\naudiences = [\"{base}/mcp\"]\ndiscovery = true\nrequired_claims = []\n\
             [streams]\ncheck_interval = \"100ms\"\n",
            provider.issuer,
        ));
    let gate = Gate::start(&settings);
    let scene = json!({
        "url": format!("{base}/mcp"), "issuer": provider.issuer, "id": "app", "secret": "a-secret",
        "needs": "read:deals", "all": "read:deals deals:write", "widens": false,
    });
    let checks = story.play(&scene, &gate, "client_revoked", |_| {
        gate.publish(&json!({"type": "client-revoked", "client": "app", "issuer": provider.issuer}));
    });
    assert_eq!(checks, 29);
}

#[test]
fn version_1_of_the_sdk_finds_its_way_on_a_route_for_any_request() {
    let started = std::cell::RefCell::new(None);
    let stage = Stage::planned(|plan: Plan| {
        let (story, server) = Story::start("mcp-v1.mjs", &plan.clone().settings().folder().join("ca.pem"));
        started.replace(Some(story));
        let resource = format!("{}/mcp", plan.issuer_name());
        plan.authority("scopes = [\"deals:read\"]").toml(&format!(
            "[[upstreams]]\nname = \"tools\"\nurl = \"{server}\"\n\
             [[resources]]\nname = \"mcp\"\npath = \"/mcp\"\nurl = \"{resource}\"\n\
             [[routes]]\npath = \"/mcp\"\nupstream = \"tools\"\nscopes = [\"deals:read\"]"
        ))
    });
    stage.user("ada", &[]);
    let app = stage.credential(&json!({"name": "Agent", "owner": "ada", "scopes": ["deals:read"]}));
    let mut story = started.take().unwrap();
    story.tell(&json!({
        "url": format!("{}/mcp", stage.issuer()), "issuer": stage.issuer(), "id": app.id, "secret": app.secret,
        "needs": "deals:read",
    }));
    assert_eq!(story.checks(), 6);
}

#[test]
fn keep_alives_of_the_server_do_not_keep_the_token_of_a_stream_in_use() {
    let (stage, _app, story, scene) = embedded("[sessions]\nidle_timeout = \"20s\"");
    // Nobody ends the token: it is the server that sends something on the stream three times a second, and no client.
    assert_eq!(story.play(&scene, &stage.gate, "idle", |_| {}), 29);
}
