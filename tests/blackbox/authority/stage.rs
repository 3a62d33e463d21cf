//! A gate with an authority, behind TLS, on a port that it keeps over restarts; and those who communicate with it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use testkit::gate::Gate;
use testkit::ports::ClaimedPort;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{Settings, overlay};
use testkit::wire::Answer;

/// The configuration of the gate to start.
#[derive(Clone)]
pub struct Plan {
    base: Settings,
    issuer: String,
    authority: String,
    issuer_lines: String,
    more: String,
}

impl Plan {
    /// Adds or replaces lines of `[authority]`.
    pub fn authority(mut self, lines: &str) -> Self {
        overlay(&mut self.authority, lines);
        self
    }

    /// Adds or replaces lines of the authority's `[[issuers]]`.
    pub fn issuer(mut self, lines: &str) -> Self {
        overlay(&mut self.issuer_lines, lines);
        self
    }

    /// Adds or replaces lines of `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        self.base = self.base.server(lines);
        self
    }

    /// Accepts client certificates of the authority in this PEM file.
    pub fn server_tls(mut self, file: &str, roots: &str) -> Self {
        self.base.file(file, roots);
        self.base = self.base.server_tls(&format!("client_ca = \"{file}\""));
        self
    }

    /// Adds or replaces lines of `[telemetry]`.
    pub fn telemetry(mut self, lines: &str) -> Self {
        self.base = self.base.telemetry(lines);
        self
    }

    /// Adds further tables. Without `[state]` among them, the state is in the authority's file.
    pub fn toml(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// Replaces the authority and its issuer with the given lines.
    pub fn instead(mut self, lines: &str) -> Settings {
        (self.authority, self.issuer_lines) = (lines.to_owned(), String::new());
        self.settings()
    }

    /// The authority's `iss`.
    pub fn issuer_name(&self) -> &str {
        &self.issuer
    }

    /// The whole configuration.
    pub fn settings(&self) -> Settings {
        let Self { base, issuer_lines, authority, more, .. } = self;
        let state = if more.contains("[state]") { "" } else { "[state]\npath = \"authority.db\"\n" };
        base.clone().toml(&format!("{issuer_lines}\n{authority}\n{more}\n{state}"))
    }
}

/// An application credential, as its owner keeps it.
#[derive(Debug, Clone)]
pub struct App {
    pub id: String,
    pub secret: String,
}

impl App {
    /// The body of a token request, with further fields.
    pub fn form(&self, more: &str) -> String {
        let Self { id, secret } = self;
        format!("grant_type=client_credentials&client_id={id}&client_secret={secret}{more}")
    }

    /// The value of a Basic `Authorization` field.
    pub fn basic(&self) -> String {
        basic(&self.id, &self.secret)
    }
}

/// The value of a Basic `Authorization` field.
pub fn basic(id: &str, secret: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
}

/// A running gate with its authority.
pub struct Stage {
    pub gate: Gate,
    pub plan: Plan,
    pub upstream: RawUpstream,
    _port: ClaimedPort,
}

impl Stage {
    /// Starts a gate with the usual configuration.
    pub fn start() -> Self {
        Self::planned(|plan| plan)
    }

    /// Starts a gate with a changed configuration.
    pub fn planned(how: impl FnOnce(Plan) -> Plan) -> Self {
        let port = ClaimedPort::new();
        let address = port.address;
        let upstream = RawUpstream::start();
        let issuer = format!("https://{address}");
        let base = Settings::tls()
            .server(&format!("listen = [\"{address}\"]"))
            .admin()
            .upstream("api", &upstream.url(), "")
            .route("/deals/{*rest}", "scopes = [\"read:deals\"]")
            .route("/users/{*rest}", "scopes = [\"read:users\"]")
            .route("/cases/{*rest}", "methods = [\"GET\"]\nroles = [\"case-reader\"]")
            .route("/cases/{*rest}", "methods = [\"POST\"]\nroles = [\"case-writer\"]")
            .route("/any/{*rest}", "");
        let plan = how(Plan {
            base,
            authority: format!(
                "[authority]\nissuer = \"{issuer}\"\naudience = \"{issuer}\"\npath = \"authority.db\"\n\
                 scopes = [\"read:deals\", \"read:activity\", \"read:users\"]\n"
            ),
            issuer_lines: format!(
                "[[issuers]]\nissuer = \"{issuer}\"\naudiences = [\"{issuer}\"]\nauthority = true\n"
            ),
            issuer,
            more: String::new(),
        });
        let gate = Gate::start(&plan.settings());
        Self { gate, plan, upstream, _port: port }
    }

    /// Kills the gate if it still runs, and restarts it with the files it left behind.
    pub fn restart(self) -> Self {
        let Self { gate, plan, upstream, _port, .. } = self;
        drop(gate);
        let gate = Gate::start(&plan.settings());
        Self { gate, plan, upstream, _port }
    }

    /// Like [`Self::restart`], with a wall clock that is off by this much, such as `-20s`, until it is set.
    pub fn restart_with_clock(self, offset: &str) -> Self {
        let Self { gate, plan, upstream, _port, .. } = self;
        drop(gate);
        let settings = plan.settings();
        let clock = clock_file(&settings);
        set_clock(&clock, offset);
        let gate = Gate::launch_with(&settings, |command| {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME_TIMESTAMP_FILE", &clock)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        });
        gate.wait_until_ready();
        Self { gate, plan, upstream, _port }
    }

    /// Steps the wall clock of a gate that was started with its own.
    pub fn step_clock(&self, offset: &str) {
        set_clock(&clock_file(&self.gate.settings), offset);
    }

    /// The authority's `iss`, which is also its URL.
    pub fn issuer(&self) -> &str {
        &self.plan.issuer
    }

    /// Calls the admin API; without a body if it is `null`.
    pub fn admin(&self, method: &str, target: &str, body: &Value) -> Answer {
        self.gate.operate(method, target, (!body.is_null()).then_some(body))
    }

    /// Puts a new configuration in force.
    #[track_caller]
    pub fn reload(&self, settings: &Settings) -> Answer {
        settings.write();
        self.admin("POST", "/v1/reload", &Value::Null)
    }

    /// Creates a user.
    #[track_caller]
    pub fn user(&self, id: &str, roles: &[&str]) {
        let made = self.admin("POST", "/v1/users", &json!({"id": id, "name": id, "roles": roles}));
        assert_eq!(made.status(), 201, "{}", made.text());
    }

    /// Creates a credential.
    #[track_caller]
    pub fn credential(&self, document: &Value) -> App {
        let made = self.admin("POST", "/v1/credentials", document);
        assert_eq!(made.status(), 201, "{}", made.text());
        let member = |name: &str| made.json()[name].as_str().unwrap().to_owned();
        App { id: member("client_id"), secret: member("client_secret") }
    }

    /// Creates the user `ada` with the roles `case-reader` and `case-writer`, and her application with the
    /// first of them and the scopes `read:deals` and `read:activity`.
    #[track_caller]
    pub fn robot(&self) -> App {
        self.user("ada", &["case-reader", "case-writer"]);
        self.credential(&json!({
            "name": "Invoice robot", "owner": "ada", "roles": ["case-reader"],
            "scopes": ["read:deals", "read:activity"], "expires_at": "2100-01-01T00:00:00Z",
        }))
    }

    /// Posts a form.
    pub fn post(&self, path: &str, form: &str) -> Answer {
        self.gate
            .request("POST", path)
            .field("Content-Type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
    }

    /// Requests a token for an application.
    #[track_caller]
    pub fn token(&self, app: &App) -> String {
        let answer = self.post("/oauth/token", &app.form(""));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// The status of a `GET` request to the API with this token.
    pub fn api(&self, path: &str, token: &str) -> u16 {
        self.gate.get(path).token(token).send().status()
    }

    /// The published key ids.
    pub fn kids(&self) -> Vec<String> {
        let keys = self.gate.get("/.well-known/jwks.json").send().json();
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

/// Debian's libfaketime, installed by tests/run; the loader finds it on every architecture.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";

fn clock_file(settings: &Settings) -> PathBuf {
    settings.folder().join("clock")
}

/// Writes atomically: the gate reads the file whenever it reads the clock.
fn set_clock(file: &Path, offset: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{offset}\n")).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// A member of a token's header or claims.
pub fn part(token: &str, place: usize) -> Value {
    use base64::Engine as _;
    let text = token.split('.').nth(place).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The key id in a token's header.
pub fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}
