//! A provider reports a logout to one gate, and the session ends on all.

use serde_json::{Value, json};

use crate::scene::{Scene, admin, decision, state, status};
use testkit::gate::Gate;
use testkit::now;
use testkit::redis_server::RedisServer;
use testkit::tokens::unique;

const LINES: &str =
    "[signals]\n[[logout]]\nname = \"op\"\nissuer = \"https://idp.example.com/\"\naudiences = [\"web\"]\n";

fn log_out(gate: &Gate, token: &str) -> u16 {
    let request = gate.request("POST", "/signals/logout/op");
    let request = request.field("Content-Type", "application/x-www-form-urlencoded");
    request.body(format!("logout_token={token}")).send().status()
}

#[test]
fn a_logout_that_one_replica_is_told_ends_the_session_on_all_and_counts_once() {
    let server = RedisServer::start();
    let mut scene = Scene::with(3, &format!("{}{LINES}", state(&server.url())));
    let token = |session: &str| scene.issuer.token().claim("sid", session).claim("jti", unique()).build();
    let (ended, other) = (token("s1"), token("s2"));
    for gate in &scene.gates {
        assert_eq!((status(gate, &ended), status(gate, &other)), (200, 200));
    }
    let logout = scene.issuer.token().head("typ", "logout+jwt").claim("aud", "web").claim("exp", now() + 120);
    let logout = logout.claim("sid", "s1").without("client_id").without("scope");
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let logout = logout.claim("events", event).build();
    assert_eq!(log_out(&scene.gates[1], &logout), 200);
    assert_eq!(decision(&scene.gates[1], &ended), "deny/session_revoked", "where it was acknowledged");
    scene.refused_everywhere(&ended);
    // The provider, or somebody else, sends it again, to another gate.
    assert_eq!(log_out(&scene.gates[2], &logout), 200);
    scene.replace(0);
    for place in 0..3 {
        let gate = &mut scene.gates[place];
        assert_eq!((status(gate, &ended), status(gate, &other)), (401, 200), "gate {place}");
        let listed: Value = admin(gate, "GET", "/v1/events", None).json();
        let listed = listed["items"].as_array().unwrap().clone();
        let told: Vec<_> =
            listed.iter().map(|event| (&event["type"], &event["session"], &event["source"])).collect();
        assert_eq!(told, [(&json!("session-revoked"), &json!("s1"), &json!("logout"))], "gate {place}");
    }
}
