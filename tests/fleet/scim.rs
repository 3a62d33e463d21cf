//! One SCIM directory behind all gates of a fleet.

use serde_json::{Value, json};

use crate::scene::{Scene, state, status};
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::wire::Answer;

const TOKEN: &str = "scim-secret-of-the-tests-0123456789";

fn scene(server: &RedisServer, gates: usize) -> Scene {
    let issuer = testkit::tokens::Issuer::new().name;
    let provider = format!(
        "[signals]\nrequests_per_sender = 100000\n[[scim]]\nname = \"idp\"\ntokens = [\"{TOKEN}\"]\nissuer = {issuer:?}\nsubject = \"userName\"\n"
    );
    Scene::with(gates, &format!("{provider}{}", state(&server.url())))
}

fn send(gate: &Gate, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let fields = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/scim+json\r\n");
    let length = body.len();
    let head = format!("{method} /signals/scim/idp/v2{path} HTTP/1.1\r\nHost: gate\r\n{fields}");
    gate.connect().exchange(format!("{head}Content-Length: {length}\r\n\r\n{body}")).unwrap()
}

fn created(gate: &Gate, path: &str, body: &Value) -> String {
    let answer = send(gate, "POST", path, body);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn directory(gate: &Gate) -> [Value; 2] {
    ["/Users?count=1000", "/Groups?count=1000"].map(|path| send(gate, "GET", path, &Value::Null).json())
}

fn joining(id: &str) -> Value {
    json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": id}]}]})
}

#[test]
fn all_gates_see_one_directory_and_end_the_tokens_of_one_change() {
    let server = RedisServer::start();
    let mut scene = scene(&server, 2);
    let token = scene.issuer.good();
    let ada = created(&scene.gates[0], "/Users", &json!({"userName": "alice"}));
    assert_eq!(
        send(&scene.gates[1], "GET", &format!("/Users/{ada}"), &Value::Null).json()["userName"],
        json!("alice")
    );
    assert_eq!(send(&scene.gates[1], "POST", "/Users", &json!({"userName": "ALICE"})).status(), 409);
    let group = created(&scene.gates[1], "/Groups", &json!({"displayName": "G"}));
    scene.gates.iter().for_each(|gate| assert_eq!(status(gate, &token), 200));
    assert_eq!(send(&scene.gates[0], "PATCH", &format!("/Groups/{group}"), &joining(&ada)).status(), 204);
    scene.refused_everywhere(&token);
    assert_eq!(directory(&scene.gates[0]), directory(&scene.gates[1]));
    scene.replace(1);
    assert_eq!(directory(&scene.gates[0]), directory(&scene.gates[1]), "a gate that starts reads all of it");
    assert_eq!(send(&scene.gates[1], "DELETE", &format!("/Users/{ada}"), &Value::Null).status(), 204);
    assert_eq!(send(&scene.gates[0], "GET", &format!("/Users/{ada}"), &Value::Null).status(), 404);
    let group = send(&scene.gates[0], "GET", &format!("/Groups/{group}"), &Value::Null).json();
    assert_eq!(group["members"], json!([]));
}

#[test]
fn changes_at_several_gates_at_once_are_all_made() {
    let server = RedisServer::start();
    let scene = scene(&server, 2);
    let group = created(&scene.gates[0], "/Groups", &json!({"displayName": "G"}));
    std::thread::scope(|scope| {
        for (place, gate) in scene.gates.iter().enumerate() {
            let group = &group;
            scope.spawn(move || {
                for i in 0..20 {
                    let id = created(gate, "/Users", &json!({"userName": format!("user-{place}-{i}")}));
                    let joined = send(gate, "PATCH", &format!("/Groups/{group}"), &joining(&id));
                    assert_eq!(joined.status(), 204, "{}", joined.text());
                }
            });
        }
    });
    let [users, groups] = directory(&scene.gates[0]);
    assert_eq!(users["totalResults"], json!(40));
    assert_eq!(groups["Resources"][0]["members"].as_array().unwrap().len(), 40);
    assert_eq!(directory(&scene.gates[1]), [users, groups]);
    let events = scene.gates[0].list("/v1/events?limit=1000");
    let names: std::collections::BTreeSet<&str> =
        events.iter().map(|event| event["subject"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 40, "each has its event");
}

#[test]
fn an_emptied_server_gets_the_directory_of_the_gates_again() {
    let server = RedisServer::start();
    let scene = scene(&server, 2);
    for i in 0..5 {
        created(&scene.gates[i % 2], "/Users", &json!({"userName": format!("user-{i}")}));
    }
    let before = directory(&scene.gates[0]);
    server.ask::<()>(&["FLUSHALL"]);
    testkit::eventually("the directory is there again", || {
        (send(&scene.gates[0], "GET", "/Users", &Value::Null).status() == 200
            && directory(&scene.gates[0]) == before)
            .then_some(())
    });
    assert_eq!(directory(&scene.gates[1]), before);
    created(&scene.gates[1], "/Users", &json!({"userName": "user-5"}));
    assert_eq!(directory(&scene.gates[0])[0]["totalResults"], json!(6));
}
