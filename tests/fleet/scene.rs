//! An upstream, an issuer and several gates in front of it that share a store.

use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::eventually;
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Answer;

/// Several gates and their surroundings.
pub struct Scene {
    pub gates: Vec<Gate>,
    pub issuer: Issuer,
    pub app: App,
}

/// `[state]` of a shared store; tests create tokens that are older than it.
pub fn state(url: &str) -> String {
    format!("[state]\nstore = \"redis\"\nurl = \"{url}\"\non_empty = \"trust\"\nflush_interval = \"200ms\"\n")
}

impl Scene {
    /// Starts this many gates on one server.
    pub fn on(server: &RedisServer, gates: usize) -> Self {
        Self::with(gates, &state(&server.url()))
    }

    /// Starts this many gates with further configuration.
    pub fn with(gates: usize, lines: &str) -> Self {
        Self::of(Issuer::new(), App::start(Speaks::Http1), gates, lines)
    }

    /// Starts this many gates for this issuer and upstream.
    pub fn of(issuer: Issuer, app: App, gates: usize, lines: &str) -> Self {
        // Kills under load would fill the memory of the harness with lines.
        let quiet = || Settings::plaintext().telemetry("access_log = false");
        let settings = || quiet().guarding(&app.url(), &issuer).admin().toml(lines);
        let launched: Vec<Gate> = (0..gates).map(|_| Gate::launch(&settings())).collect();
        launched.iter().for_each(Gate::wait_until_ready);
        Self { gates: launched, issuer, app }
    }

    /// Launches one more gate.
    pub fn launch(&self, lines: &str) -> Gate {
        let quiet = Settings::plaintext().telemetry("access_log = false");
        Gate::start(&quiet.guarding(&self.app.url(), &self.issuer).admin().toml(lines))
    }

    /// A token with this `jti` that has not been used yet.
    pub fn token(&self, jti: &str) -> String {
        self.issuer.token().claim("jti", jti).build()
    }

    /// Kills a gate and starts another in its place.
    pub fn replace(&mut self, gate: usize) {
        let settings = self.gates[gate].settings.clone();
        self.gates[gate].signal("KILL");
        self.gates[gate] = Gate::start(&settings);
    }

    /// Revokes the token with this `jti` through one gate; returns the response.
    pub fn revoke(&mut self, gate: usize, jti: &str) -> Answer {
        publish(&mut self.gates[gate], &json!({"type": "token-revoked", "jti": jti}))
    }

    /// Waits until every gate rejects the token.
    pub fn refused_everywhere(&self, token: &str) {
        for (index, gate) in self.gates.iter().enumerate() {
            eventually(&format!("gate {index} refuses the token"), || {
                (status(gate, token) == 401).then_some(())
            });
        }
    }
}

/// The status of a request with this token.
pub fn status(gate: &Gate, token: &str) -> u16 {
    gate.get("/anything").token(token).send().status()
}

/// Publishes an event.
pub fn publish(gate: &mut Gate, event: &Value) -> Answer {
    admin(gate, "POST", "/v1/events", Some(event))
}

/// Calls the admin API.
pub fn admin(gate: &mut Gate, method: &str, target: &str, body: Option<&Value>) -> Answer {
    gate.operate(method, target, body)
}

/// The decision on a request with this token, such as `deny/idle`.
pub fn decision(gate: &Gate, token: &str) -> String {
    gate.decision(|| gate.get("/anything").token(token).send()).1
}

/// The key of the stream of events.
pub const EVENTS: &str = "portcullis:{portcullis.log}:events";

/// The key of the log's origin.
pub const ORIGIN: &str = "portcullis:{portcullis.log}:origin";

/// Since when the log is complete, according to its origin.
pub fn created_at(server: &RedisServer) -> Option<String> {
    server.ask(&["HGET", ORIGIN, "created_at"])
}
