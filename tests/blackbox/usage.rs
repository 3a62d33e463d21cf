//! Usage: counts per client, route and status in a real gate, across restarts.

use serde_json::Value;

use testkit::app::{App, Speaks};
use testkit::eventually;
use testkit::gate::Gate;
use testkit::settings::Settings;
use testkit::tokens::Issuer;

/// Client, route, status and count of every row, in the order of the list.
fn rows(gate: &Gate, target: &str) -> Vec<(String, String, u64, u64)> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let row =
        |row: &Value| (text(row, "client"), text(row, "route"), number(row, "status"), number(row, "count"));
    gate.list(target).iter().map(row).collect()
}

fn row(client: &str, route: &str, status: u64, count: u64) -> (String, String, u64, u64) {
    (client.to_owned(), route.to_owned(), status, count)
}

#[test]
fn usage_is_counted_by_client_route_and_status_and_kept_across_restarts() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer(&issuer)
        .route("/{*rest}", "")
        .route("/status/{code}", "")
        .route("/admin", "scopes = [\"admin\"]")
        .admin()
        .toml("[state]\npath = \"state.db\"\non_empty = \"trust\"\nflush_interval = \"100ms\"\n");
    let mut gate = Gate::start(&settings);
    let token = |client: &str| issuer.token().claim("client_id", client).build();
    let (ann, bob) = (token("ann"), token("bob"));
    let send = |gate: &Gate, path: &str, token: &str, status: u16| {
        assert_eq!(gate.get(path).token(token).send().status(), status, "{path}");
    };
    send(&gate, "/anything", &ann, 200);
    send(&gate, "/something/else", &ann, 200);
    send(&gate, "/status/404", &ann, 404);
    send(&gate, "/status/503", &ann, 503);
    send(&gate, "/status/404", &bob, 404);
    // Refused by the gate, so nothing was used.
    send(&gate, "/admin", &ann, 403);
    send(&gate, "/anything", &issuer.token().claim("client_id", "ann").claim("exp", 1).build(), 401);
    // No client to count it for.
    send(&gate, "/anything", &issuer.token().without("client_id").build(), 200);

    let expected = vec![
        row("ann", "/status/{code}", 404, 1),
        row("ann", "/status/{code}", 503, 1),
        row("ann", "/{*rest}", 200, 2),
        row("bob", "/status/{code}", 404, 1),
    ];
    eventually("all is counted", || (rows(&gate, "/v1/usage") == expected).then_some(()));
    assert_eq!(rows(&gate, "/v1/usage?client=bob"), expected[3..]);
    assert_eq!(rows(&gate, "/v1/usage?client=nobody"), []);
    let counted = |client: &str, route: &str| {
        let labels = [("client", client), ("route", route)];
        gate.metrics().sum("portcullis_client_requests_total", &labels)
    };
    assert_eq!((counted("ann", "/{*rest}"), counted("ann", "/status/{code}")), (2.0, 2.0));
    assert_eq!((counted("bob", "/status/{code}"), counted("bob", "/{*rest}")), (1.0, 0.0));
    assert_eq!(counted("ann", "/admin"), 0.0, "forwarded requests only");

    let listed = gate.list("/v1/usage");
    gate.stop();
    let mut gate = Gate::start(&settings);
    assert_eq!(gate.list("/v1/usage"), listed, "counts and last uses");
    send(&gate, "/anything", &ann, 200);
    let more = vec![row("ann", "/{*rest}", 200, 3)];
    eventually("counting goes on", || (rows(&gate, "/v1/usage?client=ann")[2..] == more).then_some(()));
    let last =
        |gate: &Gate| gate.list("/v1/usage?client=ann")[2]["last_used_at"].as_str().unwrap().to_owned();
    assert_ne!(last(&gate), *listed[2]["last_used_at"].as_str().unwrap());
    let newest = last(&gate);

    gate.stop();
    Gate::start(&settings).kill();
    let gate = Gate::start(&settings);
    assert_eq!((rows(&gate, "/v1/usage?client=ann")[2..].to_vec(), last(&gate)), (more, newest));
}
