//! `config/monitoring` with the tools that read it: promtool for the rules, and a Prometheus server that
//! scrapes a standalone gate and a gate of a fleet while they allow, deny and fail requests.

use serde_json::json;

use crate::scene::state;
use testkit::app::{App, Speaks};
use testkit::documents::block;
use testkit::gate::Gate;
use testkit::let_pass;
use testkit::monitoring::{RULE_FILES, WATCHED, all_rules, dashboard, dashboard_queries, selectors};
use testkit::prometheus::PrometheusServer;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::{root, run};
use testkit::transmitter::SignalTransmitter;

/// How often traffic is generated before a query without data fails the test.
const ROUNDS: usize = 100;

/// Runs docs/monitoring.md: promtool check rules
#[test]
fn promtool_accepts_the_rules_and_each_alert_does_what_its_tests_say() {
    let script = block("docs/monitoring.md", "promtool check rules");
    let said = run("bash", &["-c", &format!("cd {}\nset -e\n{script}", root().display())]);
    assert_eq!(said.matches("SUCCESS").count(), RULE_FILES.len() + 1, "{said}");
}

/// A standalone gate, and one that shares its state and receives signals.
struct Watched {
    issuer: Issuer,
    lone: Gate,
    shared: Gate,
    transmitter: SignalTransmitter,
    _app: App,
    _server: RedisServer,
}

impl Watched {
    fn start() -> Self {
        let (app, issuer, server) = (App::start(Speaks::Http1), Issuer::new(), RedisServer::start());
        let transmitter = SignalTransmitter::start();
        let lone = Settings::tls().guarding(&app.url(), &issuer).toml(WATCHED).admin();
        let lone = lone
            .route("/gone", "upstream = \"gone\"")
            .route("/admins/{*rest}", "scopes = [\"admin\"]")
            .route("/shadow", "mode = \"shadow\"");
        let hears = transmitter.toml(&issuer.name, "delivery = \"poll\"\nheartbeat = \"1s\"", "");
        let shared = Settings::plaintext().guarding(&app.url(), &issuer).admin();
        let shared = shared.toml(&(state(&server.url()) + &hears));
        Self {
            lone: Gate::start(&lone),
            shared: Gate::start(&shared),
            issuer,
            transmitter,
            _app: app,
            _server: server,
        }
    }

    /// Generates traffic of every kind.
    fn make_traffic(&self, round: usize) {
        let (lone, token) = (&self.lone, self.issuer.good());
        let forged = Issuer::named(&self.issuer.name).good();
        for (path, token, status) in [
            ("/a", Some(&token), 200),
            ("/a", Some(&token), 200),
            ("/a", None, 401),
            ("/a", Some(&forged), 401),
            ("/admins/a", Some(&token), 403),
            ("/shadow", None, 200),
            ("/status/500", Some(&token), 500),
            ("/gone", Some(&token), 502),
        ] {
            let request = token.map_or_else(|| lone.get(path), |token| lone.get(path).token(token));
            assert_eq!(request.send().status(), status, "{path}");
        }
        let request = lone.request("POST", "/oauth/token");
        let request = request.field("Content-Type", "application/x-www-form-urlencoded");
        let form = "grant_type=client_credentials&client_id=nobody&client_secret=guessed";
        assert!([400, 401, 429].contains(&request.body(form).send().status()));

        let subject = format!("subject-{round}");
        let of_subject = self.issuer.token().claim("sub", subject.as_str()).build();
        let mut stream = lone.connect();
        stream.send(lone.get("/events").token(&of_subject).bytes()).unwrap();
        assert_eq!(stream.head().unwrap().status, 200);
        lone.publish(&json!({"type": "subject-revoked", "issuer": self.issuer.name, "subject": subject}));
        assert!(stream.chunk().is_err(), "cut");

        assert_eq!(self.shared.get("/a").token(&of_subject).send().status(), 200);
        self.transmitter.offer(self.transmitter.session_revoked(&self.issuer.name, &subject));
    }
}

/// A panel's title or an alert's name, and its query. Variables of the dashboard match everything, as when it
/// is opened. An alert's condition is false while all is well, so the data it looks at is queried instead.
fn questions() -> Vec<(String, String)> {
    let filled = |text: &str| {
        let text = text.replace("$__rate_interval", "1m").replace("$route|none", ".*");
        ["$job", "$instance", "$route"].iter().fold(text, |text, variable| text.replace(variable, ".*"))
    };
    let mut questions: Vec<(String, String)> =
        dashboard_queries(&dashboard()).into_iter().map(|(title, query)| (title, filled(&query))).collect();
    for rule in all_rules() {
        if rule.is_alert {
            let asked = selectors(&rule.expression).into_iter().map(|selector| selector.text);
            questions.extend(asked.map(|text| (rule.name.clone(), text)));
        } else {
            questions.push((rule.name.clone(), rule.expression));
        }
    }
    questions
}

#[test]
fn every_query_of_rules_and_dashboard_finds_data_when_prometheus_scrapes_real_gates() {
    let watched = Watched::start();
    let targets = [("lone", watched.lone.telemetry), ("shared", watched.shared.telemetry)];
    let prometheus = PrometheusServer::start(&targets, &RULE_FILES);
    let mut pending = questions();
    assert!(pending.len() > 100, "{}", pending.len());
    for round in 0..ROUNDS {
        watched.make_traffic(round);
        pending.retain(|(name, query)| {
            let samples = prometheus.query(query).unwrap_or_else(|error| panic!("{name}: {query}: {error}"));
            let is_number =
                |sample: &serde_json::Value| sample["value"][1].as_str().is_some_and(|value| value != "NaN");
            !samples.iter().any(is_number)
        });
        if pending.is_empty() {
            break;
        }
        // The next scrape announces nothing.
        let_pass(std::time::Duration::from_millis(500));
    }
    assert!(pending.is_empty(), "without data: {pending:#?}");
    for rule in prometheus.rules() {
        assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
    }
    let ready = prometheus.query("sum(portcullis_ready)").unwrap();
    assert_eq!(ready[0]["value"][1], "2");
}

/// Runs docs/monitoring.md: scrape_configs:
#[test]
fn prometheus_accepts_the_configuration_of_the_documentation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, block("docs/monitoring.md", "scrape_configs:")).unwrap();
    for rules in RULE_FILES {
        let path = root().join(rules);
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    run("promtool", &["check", "config", file.to_str().unwrap()]);
}

/// Runs docs/monitoring.md: gate.log
#[test]
fn the_first_look_finds_the_requests_that_were_denied() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&app.url(), &issuer));
    let denied = gate.get("/a").send();
    gate.record_of(denied.field("x-request-id").unwrap());
    let file = gate.settings.file("gate.log", gate.log().text());
    let script = block("docs/monitoring.md", "gate.log")
        .replace("127.0.0.1:9464", &gate.telemetry.to_string())
        .replace("gate.log", file.to_str().unwrap());
    let said = run("bash", &["-c", &(script + "true\n")]);
    for expected in [
        "\"ready\":true",
        "portcullis_decisions_total{decision=\"deny\",reason=\"missing\",route=\"/{*rest}\"} 1\n",
        denied.field("x-request-id").unwrap(),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
