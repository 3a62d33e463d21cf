//! SCIM against the built binary: the requests of Okta, Entra and Salesforce in their order, what is rejected,
//! restarts and kills, and a third-party conformance tester.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use testkit::gate::{Gate, field, message};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::root;
use testkit::wire::{Answer, Wire};
use testkit::{eventually, now};

const TOKEN: &str = "scim-secret-of-the-tests-0123456789";
const OTHER_TOKEN: &str = "next-secret-of-the-tests-0123456789";

/// A provider `idp` for the users of this issuer.
fn provider(issuer: &str, lines: &str) -> String {
    format!(
        "[signals]\nrequests_per_sender = 100000\npublic_url = \"https://gate.example.com\"\n\
         [[scim]]\nname = \"idp\"\ntokens = [\"{TOKEN}\", \"{OTHER_TOKEN}\"]\nissuer = {issuer:?}\n{lines}\n"
    )
}

/// A gate with a provider, on a store that survives it.
fn settings(upstream: &RawUpstream, issuer: &Issuer, lines: &str) -> Settings {
    let state = "[state]\npath = \"state.db\"\non_empty = \"trust\"\n";
    Settings::plaintext()
        .guarding(&upstream.url(), issuer)
        .admin()
        .toml(&provider(&issuer.name, lines))
        .toml(state)
}

struct Scim {
    gate: Gate,
    issuer: Issuer,
    upstream: RawUpstream,
    /// The ids that steps have saved.
    names: BTreeMap<String, String>,
}

fn call(gate: &Gate, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let request = format!(
        "{method} /signals/scim/idp/v2{path} HTTP/1.1\r\nHost: gate\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    gate.connect().exchange(request).unwrap()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\nContent-Type: application/scim+json; charset=utf-8\r\n")
}

impl Scim {
    fn start(lines: &str) -> Self {
        let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
        let gate = Gate::start(&settings(&upstream, &issuer, lines));
        Self { gate, issuer, upstream, names: BTreeMap::new() }
    }

    fn restart(self) -> Self {
        let Self { gate, issuer, upstream, names } = self;
        let settings = gate.settings.clone();
        drop(gate);
        Self { gate: Gate::start(&settings), issuer, upstream, names }
    }

    fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, id)| text.replace(&format!("{{{name}}}"), id))
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        call(&self.gate, method, &self.named(path), &bearer(TOKEN), &self.named(body))
    }

    /// Every event so far, type and subject.
    fn events(&self) -> Vec<String> {
        let word = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
        let events = self.gate.list("/v1/events?limit=1000");
        events.iter().map(|event| format!("{} {}", word(event, "type"), word(event, "subject"))).collect()
    }

    fn follow(&mut self, file: &str) {
        let text = std::fs::read_to_string(root().join("tests/data/scim").join(file)).unwrap();
        let steps: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert!(steps.len() > 5, "{file}");
        for step in &steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Value) {
        let does = step["does"].as_str().unwrap();
        let before = self.events();
        let body = if step["body"].is_null() { String::new() } else { step["body"].to_string() };
        let answer = self.send(step["method"].as_str().unwrap(), step["path"].as_str().unwrap(), &body);
        assert_eq!(json!(answer.status()), step["status"], "{does}: {}", answer.text());
        let shown = if answer.status() == 204 { Value::Null } else { answer.json() };
        assert_eq!(shown["scimType"], step["scimType"], "{does}: {shown}");
        if answer.status() >= 400 {
            assert_error(&answer, does);
        }
        for (place, wanted) in step["shows"].as_object().into_iter().flatten() {
            let wanted: Value = serde_json::from_str(&self.named(&wanted.to_string())).unwrap();
            assert_eq!(
                shown.pointer(place).cloned().unwrap_or_default(),
                wanted,
                "{does}: {place} of {shown}"
            );
        }
        if let Some(name) = step["save"].as_str() {
            let id = shown["id"].as_str().unwrap();
            let location = format!(
                "https://gate.example.com/signals/scim/idp/v2{}/{id}",
                step["path"].as_str().unwrap()
            );
            assert_eq!(answer.field("location"), Some(location.as_str()), "{does}");
            assert_eq!(shown["meta"]["location"], json!(location), "{does}");
            assert_eq!(answer.field("etag"), shown["meta"]["version"].as_str(), "{does}");
            self.names.insert(name.to_owned(), id.to_owned());
        }
        // Those of one request come at one moment, in no order.
        let mut ended = self.events().split_off(before.len());
        ended.sort();
        assert_eq!(json!(ended), step.get("ends").cloned().unwrap_or(json!([])), "{does}");
    }

    /// Creates two users and a group that contains the first.
    fn populate(&mut self) {
        for name in ["ada", "bob"] {
            let body = json!({"userName": name, "emails": [{"value": format!("{name}@example.com"), "type": "work"}]});
            self.create("/Users", name, &body);
        }
        self.create("/Groups", "g", &json!({"displayName": "G", "members": [{"value": "{ada}"}]}));
    }

    fn create(&mut self, path: &str, name: &str, body: &Value) {
        let answer = self.send("POST", path, &body.to_string());
        assert_eq!(answer.status(), 201, "{}", answer.text());
        self.names.insert(name.to_owned(), answer.json()["id"].as_str().unwrap().to_owned());
    }

    /// Everything that the provider can read.
    fn everything(&self) -> [Value; 2] {
        ["/Users?count=1000", "/Groups?count=1000"].map(|path| self.send("GET", path, "").json())
    }

    fn patch_members(&self, verb: &str, user: &str) -> u16 {
        let operation = json!({"op": verb, "path": "members", "value": [{"value": self.names[user]}]});
        self.send("PATCH", "/Groups/{g}", &json!({"Operations": [operation]}).to_string()).status()
    }
}

fn assert_error(answer: &Answer, what: &str) {
    assert_eq!(answer.field("content-type"), Some("application/scim+json"), "{what}");
    let said = answer.json();
    assert_eq!(said["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]), "{what}");
    assert_eq!(said["status"], json!(answer.status().to_string()), "{what}");
    assert!(said["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}: {said}");
}

/// Holds docs/configuration.md, Settings: scim[].subject
#[test]
fn okta_creates_users_and_groups_and_what_it_changes_ends_tokens() {
    Scim::start("subject = \"userName\"").follow("okta.json");
}

#[test]
fn entra_provisions_patches_and_deletes() {
    Scim::start("").follow("entra.json");
}

#[test]
fn lists_nested_as_salesforce_does_are_read() {
    Scim::start("subject = \"userName\"").follow("salesforce.json");
}

#[test]
fn what_is_not_understood_is_refused_and_changes_nothing() {
    let mut scim = Scim::start("subject = \"userName\"");
    scim.populate();
    let (directory, events) = (scim.everything(), scim.events());
    let text = std::fs::read_to_string(root().join("tests/data/scim/bad.json")).unwrap();
    let table: Vec<(String, String, String, u16, Option<String>)> = serde_json::from_str(&text).unwrap();
    assert!(table.len() > 90);
    let mut refused = 0.0;
    for (method, path, body, status, kind) in &table {
        let answer = scim.send(method, path, body);
        let what = format!("{method} {path} {body}: {}", answer.text());
        assert_eq!(answer.status(), *status, "{what}");
        assert_eq!(answer.json()["scimType"].as_str(), kind.as_deref(), "{what}");
        assert_error(&answer, &what);
        assert_eq!(answer.status() == 405, answer.field("allow").is_some(), "{what}");
        // Clients look for what they are about to create.
        refused += f64::from(u8::from(method != "GET" || *status != 404));
        let labels = [("source", "scim"), ("type", "none")];
        assert_eq!(scim.gate.metrics().sum("portcullis_signals_total", &labels), refused, "{what}");
    }
    assert_eq!(scim.everything(), directory);
    assert_eq!(scim.events(), events);
}

/// Holds docs/configuration.md, Settings: scim[].name, .tokens, .issuer
#[test]
fn only_the_tokens_of_the_provider_open_its_endpoints() {
    let mut scim = Scim::start("subject = \"userName\"");
    scim.populate();
    let longer = format!("{TOKEN}x");
    for fields in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        bearer(&TOKEN[1..]),
        bearer(&longer),
        bearer(testkit::settings::ADMIN_TOKEN),
        bearer(&scim.issuer.good()),
        format!("{}{}", bearer(TOKEN), bearer(TOKEN)),
    ] {
        for (method, path) in
            [("GET", "/Users"), ("GET", "/ServiceProviderConfig"), ("POST", "/Users"), ("GET", "/none")]
        {
            let answer = call(&scim.gate, method, path, &fields, "");
            assert_eq!(answer.status(), 401, "{fields:?} {method} {path}");
            assert_eq!(answer.field("www-authenticate"), Some("Bearer realm=\"portcullis-scim\""));
            assert_error(&answer, &fields);
        }
    }
    for token in [TOKEN, OTHER_TOKEN] {
        assert_eq!(
            call(&scim.gate, "GET", "/Users", &format!("authorization: bearer {token}\r\n"), "").status(),
            200
        );
    }
    // The token opens nothing else.
    assert_eq!(scim.gate.get("/x").token(TOKEN).send().status(), 401);
    let mut wire = Wire::plain(scim.gate.admin);
    let asked = format!("GET /v1/events HTTP/1.1\r\nHost: admin\r\n{}\r\n", bearer(TOKEN));
    assert_eq!(wire.exchange(asked).unwrap().status(), 401);
    let other = format!("GET /signals/scim/other/v2/Users HTTP/1.1\r\nHost: gate\r\n{}\r\n", bearer(TOKEN));
    let answer = scim.gate.connect().exchange(other).unwrap();
    assert_eq!(answer.status(), 404);
    assert_error(&answer, "an unknown provider");
}

#[test]
fn bodies_of_other_types_and_beyond_a_mebibyte_are_refused() {
    let mut scim = Scim::start("subject = \"userName\"");
    scim.populate();
    let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
    for (kind, status) in [
        ("", 201),
        ("Content-Type: application/json\r\n", 201),
        ("Content-Type: Application/SCIM+JSON;charset=utf-8\r\n", 201),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
        ("Content-Type: application/json\r\nContent-Type: application/json\r\n", 415),
    ] {
        let body = json!({"userName": testkit::tokens::unique()}).to_string();
        let answer = call(&scim.gate, "POST", "/Users", &format!("{authorization}{kind}"), &body);
        assert_eq!(answer.status(), status, "{kind:?} {}", answer.text());
    }
    let body = |length: usize| {
        let start = "{\"userName\": \"whole\", \"note\": \"";
        format!("{start}{}\"}}", "x".repeat(length - start.len() - 2))
    };
    let answer = scim.send("POST", "/Users", &body((1 << 20) + 1));
    assert_eq!(answer.status(), 413, "{}", answer.text());
    assert_error(&answer, "too large");
    assert_eq!(scim.send("POST", "/Users", &body(1 << 20)).status(), 201);
}

/// Holds docs/configuration.md, Settings: scim[].roles
#[test]
fn a_role_change_ends_older_tokens_and_newer_ones_pass() {
    let mut scim = Scim::start("[scim.roles]\nG = \"reader\"\nH = \"reader\"");
    let user = json!({"userName": "ada@example.com", "externalId": "alice"});
    scim.create("/Users", "ada", &user);
    scim.create("/Groups", "g", &json!({"displayName": "G"}));
    scim.create("/Groups", "h", &json!({"displayName": "H"}));
    let token = |at: i64| scim.issuer.token().claim("sub", "alice").claim("iat", at).build();
    let (old, others) = (token(now()), scim.issuer.token().claim("sub", "bob").build());
    assert_eq!(scim.gate.get("/x").token(&old).send().status(), 200);
    assert_eq!(scim.gate.get("/x").token(&others).send().status(), 200);
    assert_eq!(scim.patch_members("add", "ada"), 204);
    assert_eq!(scim.gate.reason(&old), "role_changed");
    assert_eq!(scim.gate.get("/x").token(&others).send().status(), 200);
    let said = scim.gate.log().wait_for("the signal is told", |record| {
        message(record) == Some("signal") && field(record, "source") == Some("scim")
    });
    assert_eq!(
        (&said["sender"], &said["types"], &said["tokens_ended"]),
        (&json!("idp"), &json!("role-changed"), &json!(1))
    );
    let counted = scim.gate.metrics();
    let labels = [("source", "scim"), ("type", "role-changed"), ("matched", "yes")];
    assert_eq!(counted.sum("portcullis_signals_total", &labels), 1.0);
    let changed = scim.gate.list("/v1/events")[0].clone();
    assert_eq!((&changed["source"], &changed["role_version"]), (&json!("scim"), &Value::Null), "{changed}");
    let fresh = eventually("a token of a later second passes", || {
        let token = token(now());
        (scim.gate.get("/x").token(&token).send().status() == 200).then_some(token)
    });
    // Another group of the same role changes no role.
    let operation = json!({"op": "add", "path": "members", "value": [{"value": scim.names["ada"]}]});
    assert_eq!(
        scim.send("PATCH", "/Groups/{h}", &json!({"Operations": [operation]}).to_string()).status(),
        204
    );
    assert_eq!(scim.gate.get("/x").token(&fresh).send().status(), 200);
    let disabled = json!({"Operations": [{"op": "Replace", "path": "active", "value": "False"}]});
    assert_eq!(scim.send("PATCH", "/Users/{ada}", &disabled.to_string()).status(), 200);
    assert_eq!(scim.gate.reason(&fresh), "subject_revoked");
    assert_eq!(scim.upstream.count(), 5);
}

#[test]
fn a_user_without_the_attribute_that_is_its_subject_is_refused() {
    let mut scim = Scim::start("");
    let answer = scim.send("POST", "/Users", "{\"userName\": \"ada\"}");
    assert_eq!(
        (answer.status(), answer.json()["scimType"].as_str().unwrap().to_owned()),
        (400, "invalidValue".to_owned())
    );
    scim.create("/Users", "ada", &json!({"userName": "ada", "externalId": "1"}));
    for (method, body) in [
        ("PUT", json!({"userName": "ada"})),
        ("PATCH", json!({"Operations": [{"op": "remove", "path": "externalId"}]})),
        ("PATCH", json!({"Operations": [{"op": "replace", "path": "externalId", "value": ""}]})),
    ] {
        let answer = scim.send(method, "/Users/{ada}", &body.to_string());
        assert_eq!(answer.status(), 400, "{body} {}", answer.text());
    }
    assert_eq!(scim.events(), [""; 0]);
}

#[test]
fn a_user_that_is_created_inactive_loses_the_tokens_it_may_have() {
    let mut scim = Scim::start("subject = \"id\"");
    scim.create("/Users", "ada", &json!({"userName": "ada", "active": false}));
    assert_eq!(scim.events(), [scim.named("subject-revoked {ada}")]);
    let removed = json!({"Operations": [{"op": "replace", "path": "active", "value": true}, {"op": "remove", "path": "active"}]});
    assert_eq!(scim.send("PATCH", "/Users/{ada}", &removed.to_string()).json()["active"], Value::Null);
    assert_eq!(scim.events().len(), 1, "it was inactive before and is none after");
}

#[test]
fn versions_are_told_and_expected_ones_are_honoured() {
    let mut scim = Scim::start("subject = \"userName\"");
    scim.populate();
    let read = |fields: &str| {
        call(&scim.gate, "GET", &scim.named("/Users/{ada}"), &format!("{}{fields}", bearer(TOKEN)), "")
    };
    let version = read("").field("etag").unwrap().to_owned();
    assert_eq!(read(&format!("If-None-Match: {version}\r\n")).status(), 304);
    assert_eq!(read("If-None-Match: W/\"0\"\r\n").status(), 200);
    let change = |path: &str, tag: &str, name: &str| {
        let body = json!({"Operations": [{"op": "replace", "path": "displayName", "value": name}]});
        let fields = format!("{}If-Match: {tag}\r\n", bearer(TOKEN));
        call(&scim.gate, "PATCH", &scim.named(path), &fields, &body.to_string())
    };
    let outdated = change("/Users/{ada}", "W/\"0\"", "x");
    assert_eq!(outdated.status(), 412);
    assert_error(&outdated, "outdated");
    assert_eq!(change("/Users/{ada}", &version, "x").status(), 200);
    assert_eq!(change("/Users/{ada}", &version, "y").status(), 412, "it was changed since");
    assert_eq!(change("/Users/{ada}", "*", "y").status(), 200);
    assert_eq!(change("/Groups/{g}", "W/\"0\"", "y").status(), 412);
    let group = |scim: &Scim| scim.send("GET", "/Groups/{g}", "").field("etag").unwrap().to_owned();
    let before = group(&scim);
    assert_eq!(scim.patch_members("add", "ada"), 204);
    assert_eq!(group(&scim), before, "nothing changed");
    assert_eq!(scim.patch_members("add", "bob"), 204);
    assert_ne!(group(&scim), before);
    let fields = format!("{}If-Match: {before}\r\n", bearer(TOKEN));
    for path in ["/Groups/{g}", "/Users/{ada}"] {
        assert_eq!(call(&scim.gate, "DELETE", &scim.named(path), &fields, "").status(), 412, "{path}");
    }
}

#[test]
fn pages_have_one_order_and_attributes_are_chosen() {
    let mut scim = Scim::start("subject = \"userName\"");
    for i in 0..25 {
        scim.create(
            "/Users",
            &format!("u{i}"),
            &json!({"userName": format!("user-{i}"), "name": {"givenName": "A", "familyName": "B"}}),
        );
    }
    let page = |query: &str| scim.send("GET", &format!("/Users?{query}"), "").json();
    let names = |page: &Value| -> Vec<String> {
        page["Resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["userName"].as_str().unwrap().to_owned())
            .collect()
    };
    let users = |from: usize, to: usize| (from..to).map(|i| format!("user-{i}")).collect::<Vec<_>>();
    for (query, from, to, start) in [
        ("", 0, 25, 1),
        ("startIndex=1&count=10", 0, 10, 1),
        ("startIndex=11&count=10", 10, 20, 11),
        ("startIndex=21&count=10", 20, 25, 21),
        ("startIndex=26&count=10", 25, 25, 26),
        ("startIndex=0&count=1", 0, 1, 1),
        ("startIndex=-5&count=1", 0, 1, 1),
        ("count=0", 0, 0, 1),
        ("count=-1", 0, 0, 1),
        ("count=100000", 0, 25, 1),
        ("sortBy=userName&sortOrder=descending&count=1", 0, 1, 1),
    ] {
        let page = page(query);
        assert_eq!(names(&page), users(from, to), "{query}");
        assert_eq!(
            (&page["totalResults"], &page["startIndex"], &page["itemsPerPage"]),
            (&json!(25), &json!(start), &json!(to - from)),
            "{query}"
        );
    }
    let one = |query: &str| scim.send("GET", &format!("/Users/{{u3}}?{query}"), "").json();
    let members = |shown: &Value| shown.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&one("attributes=userName")), ["id", "schemas", "userName"]);
    assert_eq!(
        members(&one("attributes=USERNAME,urn:ietf:params:scim:schemas:core:2.0:User:active")),
        ["active", "id", "schemas", "userName"]
    );
    assert_eq!(one("attributes=name.givenName")["name"], json!({"givenName": "A"}));
    assert_eq!(one("attributes=name")["name"], json!({"givenName": "A", "familyName": "B"}));
    assert_eq!(members(&one("excludedAttributes=meta,active,id")), ["id", "name", "schemas", "userName"]);
    assert_eq!(one("excludedAttributes=name.givenName")["name"], json!({"familyName": "B"}));
}

#[test]
fn the_directory_survives_a_restart_and_goes_on() {
    let mut scim = Scim::start("subject = \"userName\"");
    scim.populate();
    let (directory, events) = (scim.everything(), scim.events());
    scim = scim.restart();
    assert_eq!(scim.everything(), directory);
    assert_eq!(scim.events(), events);
    assert_eq!(scim.send("POST", "/Users", "{\"userName\": \"Ada\"}").status(), 409);
    assert_eq!(scim.patch_members("remove", "ada"), 204);
    assert_eq!(scim.events().last().unwrap(), "role-changed ada");
    scim.create("/Users", "eve", &json!({"userName": "eve"}));
    let names: Vec<Value> = scim.everything()[0]["Resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["userName"].clone())
        .collect();
    assert_eq!(names, ["ada", "bob", "eve"], "in the order in which they came");
}

/// Kills the gate while requests are in flight: what was acknowledged is there, and its event is; what was not can be sent
/// again.
#[test]
fn a_killed_gate_has_lost_nothing_that_it_acknowledged() {
    let mut scim = Scim::start("subject = \"userName\"");
    scim.create("/Groups", "g", &json!({"displayName": "G"}));
    let mut created = Vec::new();
    for round in 0..6_usize {
        let address = scim.gate.public;
        let group = scim.names["g"].clone();
        let sender = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            let send = |method: &str, path: &str, body: &Value| {
                let (body, fields) = (body.to_string(), bearer(TOKEN));
                let request = format!(
                    "{method} /signals/scim/idp/v2{path} HTTP/1.1\r\nHost: gate\r\n{fields}Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                Wire::try_plain(address).and_then(|mut wire| wire.exchange(request))
            };
            for i in 0.. {
                let name = format!("user-{round}-{i}");
                let Ok(answer) = send("POST", "/Users", &json!({"userName": name})) else { break };
                assert_eq!(answer.status(), 201, "{}", answer.text());
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                let operation = json!({"op": "add", "path": "members", "value": [{"value": id}]});
                let joined = send("PATCH", &format!("/Groups/{group}"), &json!({"Operations": [operation]}));
                let is_member = joined.is_ok_and(|answer| answer.status() == 204);
                acknowledged.push((name, id, is_member));
                if !is_member {
                    break;
                }
            }
            acknowledged
        });
        // Differently long each time: after so many of its members.
        let enough = 3 + round * 2;
        let path = "/Groups/{g}?attributes=members";
        eventually("some were acknowledged", || {
            let members = scim.send("GET", path, "").json()["members"].as_array().map_or(0, Vec::len);
            (members >= created.len() + enough).then_some(())
        });
        scim.gate.kill();
        let acknowledged = sender.join().unwrap();
        assert!(acknowledged.len() >= enough, "{}", acknowledged.len());
        created.extend(acknowledged);
        scim = scim.restart();
        let events = scim.events();
        let group = scim.send("GET", "/Groups/{g}", "").json();
        let members: Vec<&str> = group["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member["value"].as_str().unwrap())
            .collect();
        for (name, id, is_member) in &created {
            assert_eq!(scim.send("GET", &format!("/Users/{id}"), "").json()["userName"], json!(name));
            if *is_member {
                assert!(members.contains(&id.as_str()), "{name} is not in the group");
                assert!(events.contains(&format!("role-changed {name}")), "{name} has no event");
            }
        }
        // Each that is in the group has an event, acknowledged or not.
        for (name, id, _) in &created {
            assert!(
                !members.contains(&id.as_str()) || events.contains(&format!("role-changed {name}")),
                "{name}"
            );
        }
    }
}

#[test]
fn scim2_tester_finds_nothing_wrong() {
    let scim = Scim::start("subject = \"userName\"");
    let url = format!("http://{}/signals/scim/idp/v2", scim.gate.public);
    let script = root().join("tests/python/scim.py");
    let output = std::process::Command::new(root().join(".cache/python/bin/python"))
        .arg(script)
        .envs([("SCIM_URL", url.as_str()), ("SCIM_TOKEN", TOKEN)])
        .output()
        .unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    let checks: u32 = said.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(checks >= 60, "{said}");
}
