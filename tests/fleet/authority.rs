//! A gate with an authority among gates without one: its changes end tokens on all of them, or are not made.

use serde_json::{Value, json};

use crate::scene::{state, status};
use testkit::app::{App, Speaks};
use testkit::eventually;
use testkit::gate::Gate;
use testkit::operator::admin_call;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::wire::Wire;

/// The issuing gate, another one that fetches its keys over HTTP, and an application with the role `reader`.
struct Pair {
    issuing: Gate,
    other: Gate,
    form: String,
    upstream: App,
}

/// What both gates know about the authority, with the source of its keys.
fn settings(upstream: &App, server: &RedisServer, source: &str) -> Settings {
    Settings::plaintext().upstream("api", &upstream.url(), "").route("/{*rest}", "roles = [\"reader\"]").admin().toml(
        &format!(
            "[[issuers]]\nissuer = \"https://gate.test\"\naudiences = [\"https://gate.test\"]\n{source}\n\n{}",
            state(&server.url())
        ),
    )
}

/// The settings with an authority.
fn with_authority(upstream: &App, server: &RedisServer) -> Settings {
    settings(upstream, server, "authority = true").toml(
        "[authority]\nissuer = \"https://gate.test\"\naudience = \"https://gate.test\"\npath = \"authority.db\"\n",
    )
}

impl Pair {
    fn on(server: &RedisServer) -> Self {
        let upstream = App::start(Speaks::Http1);
        let issuing = Gate::start(&with_authority(&upstream, server));
        let source = format!("jwks_url = \"http://{}/.well-known/jwks.json\"", issuing.public);
        let other = Gate::start(&settings(&upstream, server, &source));
        let made = |gate: &Gate, path, document: &Value| {
            let answer = gate.operate("POST", path, Some(document));
            assert_eq!(answer.status(), 201, "{}", answer.text());
            answer.json()
        };
        made(&issuing, "/v1/users", &json!({"id": "ada", "roles": ["reader", "writer"]}));
        let app = json!({"name": "Robot", "owner": "ada", "roles": ["reader", "writer"]});
        let app = made(&issuing, "/v1/credentials", &app);
        let word = |name: &str| app[name].as_str().unwrap().to_owned();
        let (id, secret) = (word("client_id"), word("client_secret"));
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        Self { issuing, other, form, upstream }
    }

    fn token(&self) -> String {
        let request = self.issuing.request("POST", "/oauth/token");
        let answer =
            request.field("Content-Type", "application/x-www-form-urlencoded").body(&self.form).send();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn set_roles(&self, roles: &[&str]) -> u16 {
        self.issuing.operate("PUT", "/v1/users/ada/roles", Some(&json!({"roles": roles}))).status()
    }

    fn roles(&self) -> Value {
        self.issuing.operate("GET", "/v1/users/ada", None).json()["roles"].clone()
    }

    fn passes_on_both(&self, token: &str) {
        assert_eq!([status(&self.issuing, token), status(&self.other, token)], [200, 200]);
    }

    fn refused_on_both(&self, token: &str) {
        for gate in [&self.issuing, &self.other] {
            eventually("the token is refused", || (status(gate, token) == 401).then_some(()));
        }
    }
}

#[test]
fn a_role_change_ends_tokens_on_gates_that_only_know_the_key_set() {
    let server = RedisServer::start();
    let pair = Pair::on(&server);
    let token = pair.token();
    pair.passes_on_both(&token);
    assert_eq!(pair.set_roles(&["reader"]), 200);
    assert_eq!(status(&pair.issuing, &token), 401, "at once where it was changed");
    pair.refused_on_both(&token);
    pair.passes_on_both(&pair.token());
}

#[test]
fn a_change_that_the_shared_store_does_not_take_is_not_made() {
    let server = RedisServer::start();
    let pair = Pair::on(&server);
    let token = pair.token();
    pair.passes_on_both(&token);
    server.signal("STOP");
    assert_eq!(pair.set_roles(&["writer"]), 503);
    assert_eq!(pair.roles(), json!(["reader", "writer"]));
    server.signal("CONT");
    eventually("the store takes changes again", || (pair.set_roles(&["reader"]) == 200).then_some(()));
    pair.refused_on_both(&token);
    pair.passes_on_both(&pair.token());
}

#[test]
fn a_gate_killed_before_the_shared_store_answered_carries_the_change_out_when_it_is_back() {
    let server = RedisServer::start();
    let mut pair = Pair::on(&server);
    let token = pair.token();
    pair.passes_on_both(&token);
    server.signal("STOP");
    std::thread::scope(|scope| {
        let (admin, file) = (pair.issuing.admin, pair.issuing.settings.folder().join("authority.db-wal"));
        let before = std::fs::metadata(&file).unwrap().len();
        scope.spawn(move || {
            // Nobody is left to answer.
            let request = admin_call("PUT", "/v1/users/ada/roles", r#"{"roles":["reader"]}"#);
            let answer = Wire::plain(admin).exchange(request);
            assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() != 200));
        });
        eventually("the intent is stored", || {
            (std::fs::metadata(&file).unwrap().len() > before).then_some(())
        });
        pair.issuing.kill();
    });
    server.signal("CONT");
    pair.issuing = Gate::start(&pair.issuing.settings.clone());
    eventually("the change is made", || (pair.roles() == json!(["reader"])).then_some(()));
    pair.refused_on_both(&token);
    pair.passes_on_both(&pair.token());
}

#[test]
fn a_second_authority_in_the_fleet_is_reported() {
    let server = RedisServer::start();
    let pair = Pair::on(&server);
    let conflicts = |gate: &Gate| gate.metrics().sum("portcullis_authority_conflict", &[]);
    let kids: String = eventually("the first one is registered", || {
        let keys: Vec<String> = server.ask(&["KEYS", "portcullis:authority:*"]);
        Some(server.ask(&["GET", keys.first()?]))
    });
    assert!(!kids.is_empty() && kids.len() < 200, "ids of public keys, and nothing else: {kids}");
    let second = Gate::start(&with_authority(&pair.upstream, &server));
    second.log().wait_for_text("another gate of this fleet runs an authority with different keys");
    eventually("the metric says so", || (conflicts(&second) == 1.0).then_some(()));
    assert_eq!(conflicts(&pair.issuing), 0.0, "it was there first");
    // The same authority, started again, is no other one.
    let mut first = pair.issuing;
    first.stop();
    let first = Gate::start(&first.settings.clone());
    eventually("it issues tokens", || {
        (first.get("/.well-known/jwks.json").send().status() == 200).then_some(())
    });
    assert_eq!(conflicts(&first), 0.0);
}
