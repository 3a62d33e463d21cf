//! A state with a SCIM directory whose users hold credentials of the embedded authority: it moves between stores, and the gate at
//! its new place knows the same users, groups and revocations.

use std::path::Path;

use serde_json::{Value, json};

use testkit::gate::{Gate, path_text, portcullis};
use testkit::raw_upstream::RawUpstream;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::wire::Answer;

const SCIM_TOKEN: &str = "scim-secret-of-the-tests-0123456789";

/// Where every gate of a test has its users, credentials and signing keys, and what it is in front of.
struct Place {
    folder: tempfile::TempDir,
    upstream: RawUpstream,
    server: RedisServer,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, upstream: RawUpstream::start(), server: RedisServer::start() }
    }

    fn settings(&self, state: &str) -> Settings {
        let authority = self.folder.path().join("authority.db");
        Settings::plaintext()
            .upstream("api", &self.upstream.url(), "")
            .route("/{*rest}", "")
            .route("/cases/{id}", "roles = [\"case-reader\"]")
            .admin()
            .toml(&format!(
                "[[issuers]]\nissuer = \"https://gate.test\"\naudiences = [\"https://api.test\"]\nauthority = true\n\
                 [authority]\nissuer = \"https://gate.test\"\naudience = \"https://api.test\"\n\
                 path = {authority:?}\n\
                 [signals]\nrequests_per_sender = 100000\n\
                 [[scim]]\nname = \"idp\"\ntokens = [\"{SCIM_TOKEN}\"]\nissuer = \"https://gate.test\"\n\
                 subject = \"userName\"\n[scim.roles]\nReaders = \"case-reader\"\n[state]\n{state}\n"
            ))
    }

    fn embedded(&self) -> Settings {
        self.settings("path = \"state.db\"")
    }

    fn redis(&self) -> Settings {
        self.settings(&format!("store = \"redis\"\nurl = \"{}\"", self.server.url()))
    }

    /// Moves the state of a gate that has ended, and returns what the import says.
    #[track_caller]
    fn moved(&self, from: &Settings, to: &Settings, name: &str) -> Value {
        let file = self.folder.path().join(name);
        done("export", from, &file);
        done("import", to, &file)
    }
}

#[track_caller]
fn done(command: &str, settings: &Settings, file: &Path) -> Value {
    let config = settings.write();
    let outcome = portcullis(&["state", command, "--config", path_text(&config), path_text(file), "--json"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{command}: {outcome:?}");
    serde_json::from_str(&outcome.out).unwrap()
}

fn scim(gate: &Gate, method: &str, path: &str, body: &Value) -> Answer {
    let request = gate.request(method, &format!("/signals/scim/idp/v2{path}")).token(SCIM_TOKEN);
    if body.is_null() {
        return request.send();
    }
    request.field("Content-Type", "application/scim+json").body(body.to_string()).send()
}

#[track_caller]
fn created(gate: &Gate, path: &str, body: &Value) -> String {
    let answer = scim(gate, "POST", path, body);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn deactivate(gate: &Gate, user: &str) {
    let body = json!({"Operations": [{"op": "replace", "value": {"active": false}}]});
    assert_eq!(scim(gate, "PATCH", &format!("/Users/{user}"), &body).status(), 200);
}

/// A credential of this user for all of these roles, as the form that gets its tokens.
fn credential(gate: &Gate, owner: &str, roles: &[&str]) -> String {
    let document = json!({"name": "Robot", "owner": owner, "roles": roles});
    let made = gate.operate("POST", "/v1/credentials", Some(&document));
    assert_eq!(made.status(), 201, "{}", made.text());
    let made = made.json();
    let (id, secret) = (made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    format!("grant_type=client_credentials&client_id={id}&client_secret={secret}")
}

/// A token, or the error instead.
fn token(gate: &Gate, form: &str) -> Result<String, String> {
    let request = gate.request("POST", "/oauth/token");
    let answer = request.field("Content-Type", "application/x-www-form-urlencoded").body(form).send().json();
    let text = |member: &str| answer[member].as_str().map(str::to_owned);
    text("access_token").ok_or_else(|| text("error").unwrap())
}

/// What a gate has: resources of the provider, whole and one by one with their versions; users, credentials, revocations.
fn everything(gate: &Gate) -> Vec<Value> {
    let mut found = Vec::new();
    for path in ["/Users", "/Groups"] {
        let list = scim(gate, "GET", &format!("{path}?count=1000"), &Value::Null).json();
        for resource in list["Resources"].as_array().unwrap() {
            let path = format!("{path}/{}", resource["id"].as_str().unwrap());
            let one = scim(gate, "GET", &path, &Value::Null);
            found.push(json!({"resource": one.json(), "etag": one.field("etag")}));
        }
        found.push(list);
    }
    found.extend(["/v1/users", "/v1/credentials"].iter().flat_map(|list| gate.list(list)));
    let revocations = gate.list("/v1/revocations");
    // Numbers of events are those of each store.
    let without_ids = revocations.into_iter().map(|mut revocation| {
        revocation["id"].take();
        revocation
    });
    found.extend(without_ids);
    found
}

#[test]
fn a_directory_with_its_users_moves_from_a_file_to_another_to_redis_and_back() {
    let place = Place::new();
    let first = place.embedded();
    let mut gate = Gate::start(&first);
    for user in ["ada", "bob", "eve"] {
        let user = json!({"id": user, "roles": ["case-reader", "case-writer"]});
        assert_eq!(gate.operate("POST", "/v1/users", Some(&user)).status(), 201);
    }
    let roles = ["case-reader", "case-writer"];
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(|user| credential(&gate, user, &roles));
    for user in ["ada", "eve"] {
        created(
            &gate,
            "/Users",
            &json!({"userName": user, "displayName": user.to_uppercase(), "active": true}),
        );
    }
    let members = json!([{"value": "ada"}, {"value": "eve"}]);
    let readers = created(&gate, "/Groups", &json!({"displayName": "Readers", "members": members}));
    let writers = json!({"displayName": "case-writer", "members": [{"value": "ada"}]});
    let writers = created(&gate, "/Groups", &writers);
    let get = |gate: &Gate, form: &str| token(gate, form).unwrap();
    let of_both_roles = get(&gate, &ada);
    let remove = json!({"Operations": [{"op": "remove", "path": "members", "value": [{"value": "ada"}]}]});
    assert_eq!(scim(&gate, "PATCH", &format!("/Groups/{writers}"), &remove).status(), 204);
    let (of_a_reader, of_bob, of_eve) = (get(&gate, &ada), get(&gate, &bob), get(&gate, &eve));
    let revoked = get(&gate, &bob);
    let revoke = format!("{}&token={revoked}", bob.replace("grant_type=client_credentials&", ""));
    let request = gate.request("POST", "/oauth/revoke");
    let request = request.field("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(request.body(revoke).send().status(), 200);
    assert_eq!(gate.get("/cases/1").token(&of_eve).send().status(), 200);
    deactivate(&gate, "eve");

    let judged = |gate: &Gate| {
        for (token, reason) in [
            (&of_both_roles, "role_changed"),
            (&of_a_reader, "allowed"),
            (&of_bob, "allowed"),
            (&revoked, "token_revoked"),
            (&of_eve, "subject_revoked"),
        ] {
            assert_eq!(gate.would_say(token), reason);
        }
        assert_eq!(gate.get("/cases/1").token(&of_a_reader).send().status(), 200);
        assert_eq!(gate.get("/cases/1").token(&of_eve).send().status(), 401);
        assert_eq!(token(gate, &eve), Err("invalid_client".to_owned()));
    };
    judged(&gate);
    let before = everything(&gate);
    assert_eq!(before.iter().filter(|found| !found["etag"].is_null()).count(), 4, "{before:#?}");
    gate.stop();

    let stores = [place.embedded(), place.redis(), place.embedded()];
    let mut from = &first;
    for (nth, to) in stores.iter().enumerate() {
        let imported = place.moved(from, to, &format!("{nth}.jsonl"));
        assert_eq!((&imported["complete"], &imported["kept_directories"]), (&json!(true), &json!([])));
        let mut gate = Gate::start(to);
        assert_eq!(everything(&gate), before, "{imported}");
        judged(&gate);
        gate.stop();
        from = to;
    }

    // The provider continues where it was.
    let gate = Gate::start(from);
    let answer = scim(&gate, "PATCH", &format!("/Groups/{readers}"), &remove);
    assert_eq!(answer.status(), 204, "{}", answer.text());
    assert_eq!(gate.would_say(&of_a_reader), "role_changed");
    assert_eq!(token(&gate, &ada), Err("unauthorized_client".to_owned()));
    assert_eq!(scim(&gate, "DELETE", "/Users/eve", &Value::Null).status(), 204);
    assert_eq!(gate.would_say(&of_eve), "subject_revoked");
}

#[test]
fn a_later_import_brings_a_directory_up_to_date_unless_it_was_changed_where_it_is() {
    let place = Place::new();
    let first = place.embedded();
    let mut gate = Gate::start(&first);
    let user = |name: &str| json!({"userName": name, "active": true});
    for name in ["ada", "eve", "gone"] {
        created(&gate, "/Users", &user(name));
    }
    let readers = json!({"displayName": "Readers", "members": [{"value": "ada"}, {"value": "eve"}]});
    created(&gate, "/Groups", &readers);
    let [ada, eve] = ["ada", "eve"].map(|name| credential(&gate, name, &["case-reader"]));
    let early = place.folder.path().join("early.jsonl");
    done("export", &first, &early);
    // After an export while a gate was running.
    deactivate(&gate, "eve");
    assert_eq!(scim(&gate, "DELETE", "/Users/gone", &Value::Null).status(), 204);
    created(&gate, "/Users", &user("new"));
    let before = everything(&gate);
    gate.stop();
    let late = place.folder.path().join("late.jsonl");
    done("export", &first, &late);

    for (nth, store) in [place.embedded(), place.redis()].into_iter().enumerate() {
        done("import", &store, &early);
        let imported = done("import", &store, &late);
        assert_eq!(imported["kept_directories"], json!([]), "{imported}");
        let mut gate = Gate::start(&store);
        assert_eq!(everything(&gate), before);
        assert_eq!(token(&gate, &eve), Err("invalid_client".to_owned()));
        gate.stop();
        for file in [&early, &late] {
            let again = done("import", &store, file);
            let kept = if file == &early { json!(["idp"]) } else { json!([]) };
            assert_eq!(again["kept_directories"], kept, "an older one replaces nothing: {again}");
        }
        let mut gate = Gate::start(&store);
        assert_eq!(everything(&gate), before);
        if nth == 0 {
            gate.stop();
            continue;
        }
        // What the provider says at the new place counts.
        deactivate(&gate, "ada");
        gate.stop();
        let again = done("import", &store, &late);
        assert_eq!(again["kept_directories"], json!(["idp"]), "{again}");
        let config = store.write();
        let told = portcullis(&["state", "import", "--config", path_text(&config), path_text(&late)]);
        assert!(told.out.contains("not replaced") && told.out.contains("idp"), "{told:?}");
        let gate = Gate::start(&store);
        assert_eq!(token(&gate, &ada), Err("invalid_client".to_owned()));
    }
}
