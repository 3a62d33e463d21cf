//! What operators do with a running gate on the command line: sessions, revocations, events, usage, reloads.

use serde_json::{Value, json};

use testkit::eventually;
use testkit::gate::{Gate, Outcome, path_text, portcullis};
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;

/// A gate, and what its operators need.
struct Operators {
    gate: Gate,
    issuer: Issuer,
    place: Vec<String>,
    _upstream: RawUpstream,
}

impl Operators {
    fn start() -> Self {
        let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
        let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
        let token_file = path_text(&settings.file("admin.token", ADMIN_TOKEN)).to_owned();
        let gate = Gate::start(&settings);
        let place = ["--admin", &format!("http://{}", gate.admin), "--token-file", &token_file];
        let place = place.map(str::to_owned).to_vec();
        Self { gate, issuer, place, _upstream: upstream }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let place = self.place.iter().map(String::as_str);
        portcullis(&arguments.iter().copied().chain(place).collect::<Vec<_>>())
    }

    /// The output of a command that must succeed.
    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{arguments:?}: {outcome:?}");
        outcome.out
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[arguments, &["--json"]].concat())).unwrap()
    }

    #[track_caller]
    fn items(&self, arguments: &[&str]) -> Vec<Value> {
        self.json(arguments)["items"].as_array().unwrap().clone()
    }

    /// A token of a subject and a client that has been used.
    fn used(&self, subject: &str, client: &str) -> String {
        let token = self.issuer.token().claim("sub", subject).claim("client_id", client).build();
        assert_eq!(self.gate.get("/").token(&token).send().status(), 200);
        token
    }

    fn status(&self, token: &str) -> u16 {
        self.gate.get("/").token(token).send().status()
    }
}

#[test]
fn tokens_in_use_are_listed_by_filters_and_ended_by_the_beginning_of_their_name_or_by_subject() {
    let operators = Operators::start();
    assert_eq!(operators.says(&["session", "list"]), "no tokens in use\n");
    let tokens = [("alice", "app"), ("alice", "robot"), ("bob", "app")];
    let [first, second, third] = tokens.map(|(subject, client)| operators.used(subject, client));
    let issuer = operators.issuer.name.clone();
    for (filters, count) in [
        (&[][..], 3),
        (&["--subject", "alice"], 2),
        (&["--client", "app"], 2),
        (&["--subject", "alice", "--client", "app"], 1),
        (&["--issuer", &issuer], 3),
        (&["--subject", "carol"], 0),
        (&["--limit", "2"], 2),
    ] {
        let found = operators.items(&[&["session", "list"], filters].concat());
        assert_eq!(found.len(), count, "{filters:?}: {found:?}");
    }
    let page = operators.json(&["session", "list", "--limit", "2"]);
    let next = page["next"].as_str().unwrap();
    assert_eq!(page["items"][1]["token"], next);
    assert_eq!(operators.items(&["session", "list", "--after", next]).len(), 1);
    let told = operators.says(&["session", "list", "--limit", "2"]);
    assert!(told.starts_with("TOKEN ") && told.contains(&format!("--after {next}")), "{told}");

    let robot = &operators.items(&["session", "list", "--client", "robot"])[0];
    let name = &robot["token"].as_str().unwrap()[..12];
    assert_eq!(operators.says(&["session", "end", name]), format!("{name} is revoked\n"));
    assert_eq!((operators.status(&second), operators.status(&first)), (401, 200));
    let told = operators.says(&["session", "end", "--subject", "alice"]);
    assert!(told.contains("alice"), "{told}");
    assert_eq!((operators.status(&first), operators.status(&third)), (401, 200));

    for (arguments, code, words) in [
        (&["session", "end", "000000000000"][..], 1, "no such token is in use"),
        (&["session", "end", "--subject", "bob", "--issuer", "https://other.test/"], 1, "issuer"),
        (&["session", "end"], 2, "--subject"),
        (&["session", "end", name, "--subject", "bob"], 2, "cannot be used with"),
        (&["session", "end", name, "--issuer", "https://a/"], 2, "--issuer"),
        (&["session", "list", "--limit", "0"], 2, "--limit"),
        (&["session", "list", "--after", "nowhere"], 1, "`after`"),
        (&["session", "list", "--issuer", "https://other.test/"], 1, "issuer"),
        (&["session"], 2, "Usage"),
    ] {
        let outcome = operators.run(arguments);
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.contains(words), "{arguments:?}: {outcome:?}");
    }
    assert_eq!(operators.status(&third), 200);
}

#[test]
fn revocations_are_listed_and_undone() {
    let operators = Operators::start();
    assert_eq!(operators.says(&["revocation", "list"]), "no revocations are in force\n");
    assert_eq!(operators.says(&["event", "list"]), "no events are stored\n");
    let token = operators.issuer.token().claim("sub", "alice").claim("iat", now() - 60).build();
    operators.says(&["event", "subject-revoked", "--subject", "alice"]);
    operators.says(&["event", "client-revoked", "--client", "robot"]);
    operators.says(&["event", "role-changed", "--subject", "b\u{1b}[31mob", "--role-version", "7"]);
    assert_eq!(operators.status(&token), 401);

    let listed = operators.says(&["revocation", "list"]);
    for text in ["ID ", "subject-revoked", "alice", "client-revoked", "robot", "role-changed", "admin"] {
        assert!(listed.contains(text), "{text} in {listed}");
    }
    assert!(!listed.contains('\u{1b}'), "a name must not reach the terminal as a command: {listed:?}");
    for (filters, ids) in [
        (&[][..], json!([1, 2, 3])),
        (&["--subject", "alice"], json!([1])),
        (&["--client", "robot"], json!([2])),
        (&["--jti", "none"], json!([])),
        (&["--issuer", &operators.issuer.name, "--limit", "1"], json!([1])),
        (&["--after", "1"], json!([2, 3])),
    ] {
        let found = operators.items(&[&["revocation", "list"], filters].concat());
        let found: Vec<&Value> = found.iter().map(|item| &item["id"]).collect();
        assert_eq!(json!(found), ids, "{filters:?}");
    }

    assert_eq!(operators.says(&["revocation", "undo", "1"]), "revocation 1 is undone\n");
    assert_eq!(operators.status(&token), 200);
    assert_eq!(operators.items(&["revocation", "list"]).len(), 2);
    let events = operators.says(&["event", "list"]);
    assert!(
        events.contains("SEQUENCE") && events.contains("undoes 1") && events.contains("version 7"),
        "{events}"
    );
    for (arguments, code, words) in [
        (&["revocation", "undo", "99"][..], 1, "there is no such revocation"),
        (&["revocation", "undo", "first"], 2, "ID"),
        (&["revocation", "list", "--subject", "a", "--client", "b"], 2, "cannot be used with"),
        (&["event", "role-changed", "list"], 2, "neither"),
        (&["event", "--subject", "a", "list"], 2, "neither"),
    ] {
        let outcome = operators.run(arguments);
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.contains(words), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn long_lists_are_read_to_their_end() {
    let operators = Operators::start();
    let event = |number: usize| json!({"type": "subject-revoked", "subject": format!("s-{number:05}-{}", "x".repeat(900))});
    let events: Vec<Value> = (0..2_500).map(event).collect();
    operators.gate.publish(&json!(events));
    for arguments in [["event", "list"], ["revocation", "list"]] {
        let found = operators.items(&arguments);
        let subjects: Vec<&str> = found.iter().map(|item| item["subject"].as_str().unwrap()).collect();
        assert_eq!(subjects.len(), 2_500, "{arguments:?}");
        assert!(subjects.is_sorted() && subjects[2_499].starts_with("s-02499"), "{arguments:?}");
    }
    let part = operators.json(&["event", "list", "--limit", "1500"]);
    assert_eq!((part["items"].as_array().unwrap().len(), &part["next"]), (1_500, &json!(1_500)));
}

#[test]
fn usage_shows_which_client_called_which_route() {
    let operators = Operators::start();
    assert_eq!(operators.says(&["usage"]), "no requests were counted\n");
    for client in ["app", "app", "robot"] {
        operators.used("alice", client);
    }
    let counts = |arguments: &[&str]| {
        let items = operators.items(arguments);
        let row = |item: &Value| json!([item["client"], item["status"], item["count"]]);
        json!(items.iter().map(row).collect::<Vec<_>>())
    };
    assert_eq!(counts(&["usage"]), json!([["app", 200, 2], ["robot", 200, 1]]));
    assert_eq!(counts(&["usage", "--client", "robot"]), json!([["robot", 200, 1]]));
    assert_eq!(counts(&["usage", "--client", "nobody"]), json!([]));
    let told = operators.says(&["usage", "--limit", "1"]);
    assert!(told.starts_with("CLIENT ") && told.contains("app") && told.contains("--after"), "{told}");
}

#[test]
fn a_reload_is_in_force_when_the_command_returns_or_every_problem_is_shown() {
    let operators = Operators::start();
    let settings = &operators.gate.settings;
    let good = std::fs::read_to_string(settings.write()).unwrap();
    let path = settings.folder().join("portcullis.toml");
    assert_eq!(operators.says(&["reload"]), "the configuration was reloaded and is in force\n");
    assert_eq!(operators.json(&["reload"]), json!({"reloaded": true}));

    std::fs::write(&path, good.clone() + "\n[sever]\n[[rotues]]\npath = \"/x\"\n").unwrap();
    let outcome = operators.run(&["reload"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{outcome:?}");
    for text in ["the previous one", "sever", "rotues", "portcullis.toml:"] {
        assert!(outcome.err.contains(text), "{text} in {outcome:?}");
    }
    let outcome = operators.run(&["reload", "--json"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let document: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(document["reloaded"], false);
    assert_eq!(document["problems"].as_array().unwrap().len(), 2, "{document}");
    assert_eq!(operators.status(&operators.issuer.good()), 200, "the gate goes on");

    std::fs::write(&path, good).unwrap();
    eventually("the good file is in force again", || (operators.run(&["reload"]).code == 0).then_some(()));
}
