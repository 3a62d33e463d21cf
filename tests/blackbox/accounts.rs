//! `portcullis user` and `portcullis credential` against a running gate that issues tokens, and their effect there.

use std::net::SocketAddr;

use serde_json::{Value, json};

use testkit::gate::{Gate, Outcome, field, path_text, portcullis, portcullis_reading};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::wire::{Answer, Wire};

pub const AUTHORITY: &str = r#"
[[issuers]]
issuer = "https://gate.test"
audiences = ["https://api.test"]
algorithms = ["ES256"]
authority = true

[authority]
issuer = "https://gate.test"
audience = "https://api.test"
token_path = "/OAuth/Token"
scopes = ["read:deals", "read:users"]
path = "authority.db"
"#;

/// A gate with an authority in front of an upstream, and the address of its admin listener.
pub struct Operated {
    pub gate: Gate,
    admin: SocketAddr,
    token_file: String,
    _upstream: RawUpstream,
}

impl Operated {
    pub fn start(lines: &str) -> Self {
        let upstream = RawUpstream::start();
        let settings = Settings::plaintext()
            .telemetry(lines)
            .upstream("api", &upstream.url(), "")
            .route("/{*rest}", "")
            .route("/cases/{id}", "roles = [\"case-reader\"]")
            .toml(AUTHORITY)
            .admin();
        let token_file = path_text(&settings.file("admin.token", ADMIN_TOKEN)).to_owned();
        let gate = Gate::start(&settings);
        let admin = gate.admin;
        Self { gate, admin, token_file, _upstream: upstream }
    }

    /// Runs a command with this gate's admin URL and token.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        portcullis(&self.with_place(arguments).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Like [`Self::run`], with this standard input.
    pub fn run_reading(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let arguments = self.with_place(arguments);
        portcullis_reading(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), input)
    }

    /// Appends this gate's admin URL and token to arguments.
    pub fn with_place(&self, arguments: &[&str]) -> Vec<String> {
        let admin = format!("http://{}", self.admin);
        let place = ["--admin", &admin, "--token-file", &self.token_file];
        [arguments, &place].concat().into_iter().map(str::to_owned).collect()
    }

    /// The output of a command that must succeed.
    #[track_caller]
    pub fn says(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{arguments:?}: {outcome:?}");
        outcome.out
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Requests a token.
    fn ask(&self, client_id: &str, secret: &str) -> Answer {
        let form = format!("grant_type=client_credentials&client_id={client_id}&client_secret={secret}");
        let request = self.gate.request("POST", "/OAuth/Token");
        request.field("Content-Type", "application/x-www-form-urlencoded").body(form).send()
    }

    #[track_caller]
    fn token(&self, made: &Value) -> String {
        let answer = self.ask(text(made, "client_id"), text(made, "client_secret"));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        text(&answer.json(), "access_token").to_owned()
    }

    /// The status of a request with a token.
    fn opens(&self, path: &str, token: &str) -> u16 {
        self.gate.get(path).token(token).send().status()
    }
}

#[track_caller]
fn text<'a>(document: &'a Value, member: &str) -> &'a str {
    document[member].as_str().unwrap_or_else(|| panic!("{member} in {document}"))
}

#[test]
fn an_application_is_created_used_and_deleted_from_the_command_line() {
    let operated = Operated::start("");
    let created =
        operated.says(&["user", "create", "alice", "--role", "case-reader", "--role", "case-writer"]);
    assert!(created.contains("alice") && created.contains("case-reader, case-writer"), "{created}");
    let robot = ["credential", "create", "--name", "Invoice robot", "--owner", "alice"];
    let rights =
        ["--role", "case-reader", "--scope", "read:deals,read:users", "--expires-at", "2999-01-01T00:00:00Z"];
    let made = operated.json(&[&robot[..], &rights].concat());
    assert_eq!(made["scopes"], json!(["read:deals", "read:users"]));
    assert_eq!(made["expires_at"], "2999-01-01T00:00:00.000Z");
    let client_id = text(&made, "client_id");
    let first = operated.token(&made);
    assert_eq!(operated.opens("/cases/1", &first), 200);

    let said = operated.says(&["user", "roles", "alice", "--role", "case-writer,auditor"]);
    assert!(said.contains("case-writer, auditor"), "{said}");
    assert_eq!(operated.opens("/cases/1", &first), 401);
    let refused = operated.ask(client_id, text(&made, "client_secret"));
    assert_eq!((refused.status(), text(&refused.json(), "error")), (400, "unauthorized_client"));
    let user = operated.json(&["user", "roles", "alice", "--role", "case-reader"]);
    assert_eq!((&user["roles"], &user["role_version"]), (&json!(["case-reader"]), &json!(3)));
    let second = operated.token(&made);
    assert_eq!(operated.opens("/cases/1", &second), 200);

    let edited = operated.says(&["credential", "edit", client_id, "--name", "Robot 2", "--no-expiry"]);
    assert!(edited.contains("Robot 2") && !edited.contains("2999"), "{edited}");
    let renewed = operated.json(&["credential", "secret", client_id, "--overlap", "1h"]);
    assert!(operated.says(&["credential", "show", client_id]).contains("old secret expires at  "));
    for secret in [&made, &renewed] {
        operated.token(secret);
    }
    let again = operated.json(&["credential", "secret", client_id, "--end-tokens"]);
    assert_eq!(operated.opens("/cases/1", &second), 401);
    for secret in [&made, &renewed] {
        let refused = operated.ask(client_id, text(secret, "client_secret"));
        assert_eq!(text(&refused.json(), "error"), "invalid_client");
    }

    let deleted = operated.says(&["credential", "delete", client_id]);
    assert!(deleted.contains(client_id), "{deleted}");
    let refused = operated.ask(client_id, text(&again, "client_secret"));
    assert_eq!(text(&refused.json(), "error"), "invalid_client");
    assert!(operated.says(&["user", "delete", "alice"]).contains("alice"));
    assert_eq!(operated.says(&["user", "list"]), "there are no users\n");
}

#[test]
fn tables_are_for_people_and_json_is_the_document() {
    let operated = Operated::start("");
    assert_eq!(operated.says(&["user", "list"]), "there are no users\n");
    assert_eq!(operated.says(&["credential", "list"]), "there are no credentials\n");
    assert_eq!(operated.says(&["credential", "list", "--owner", "zoë"]), "zoë has no credentials\n");
    assert_eq!(operated.json(&["user", "list"]), json!({"items": [], "next": null}));

    operated.says(&["user", "create", "zoë & co/1", "--name", "Zoë", "--role", "r,s"]);
    operated.says(&["user", "create", "bob"]);
    let list = operated.says(&["user", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(
        lines[0].starts_with("ID          NAME  ROLES  ROLE VERSION  CREATED AT                HAS PASSWORD"),
        "{list}"
    );
    assert!(lines[1].starts_with("bob         bob   -      1             20"), "{list}");
    assert!(lines[2].starts_with("zoë & co/1  Zoë   r, s   1             20"), "{list}");
    let shown = operated.says(&["user", "show", "zoë & co/1"]);
    assert!(
        shown.starts_with("id            zoë & co/1\nname          Zoë\nroles         r, s\n"),
        "{shown}"
    );
    let user = operated.json(&["user", "show", "zoë & co/1"]);
    assert_eq!((&user["id"], &user["roles"]), (&json!("zoë & co/1"), &json!(["r", "s"])));

    let create = ["credential", "create", "--name", "Robot", "--owner", "zoë & co/1", "--tenant", "t"];
    let said = operated.run(&create).out;
    let (client_id, rest) = said.strip_prefix("client id      ").unwrap().split_once('\n').unwrap();
    let secret = rest.strip_prefix("client secret  ").unwrap().lines().next().unwrap();
    assert!(said.contains("never shown again"), "{said}");
    operated.token(&json!({"client_id": client_id, "client_secret": secret}));
    let row = format!("{client_id}  Robot  zoë & co/1  -      -       t       -\n");
    assert!(operated.says(&["credential", "list", "--owner", "zoë & co/1"]).ends_with(&row), "{row}");
    for command in [&["credential", "list"][..], &["credential", "show", client_id]] {
        for form in [operated.says(command), operated.json(command).to_string()] {
            assert!(form.contains(client_id) && !form.contains(secret), "{form}");
        }
    }
    assert_eq!(operated.json(&["credential", "delete", client_id]), Value::Null);
    let none = operated.says(&["user", "roles", "zoë & co/1", "--none"]);
    assert!(none.starts_with("zoë & co/1 holds the roles: -\n"), "{none}");
}

#[test]
fn a_list_goes_through_every_page() {
    let operated = Operated::start("");
    let mut wire = Wire::plain(operated.admin);
    let ids: Vec<String> = (0..300).map(|number| format!("user+{number:03}")).collect();
    // Together several times what one answer may hold.
    let roles: Vec<String> = (0..100).map(|number| format!("{number:0>150}")).collect();
    for id in &ids {
        let body = json!({ "id": id, "roles": roles }).to_string();
        let request = format!(
            "POST /v1/users HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(wire.exchange(request).unwrap().status(), 201);
    }
    let list = operated.json(&["user", "list"]);
    let listed: Vec<&str> = list["items"].as_array().unwrap().iter().map(|user| text(user, "id")).collect();
    assert_eq!(listed, ids);
    assert_eq!(operated.says(&["user", "list"]).lines().count(), 1 + ids.len());
}

#[test]
fn an_owner_is_shown_nobody_elses_credentials() {
    let operated = Operated::start("");
    let mut made = Vec::new();
    for user in ["alice", "bob"] {
        operated.says(&["user", "create", user]);
        let create = ["credential", "create", "--name", user, "--owner", user, "--scope", "read:deals"];
        made.push(operated.json(&create));
    }
    let (hers, his) = (text(&made[0], "client_id"), text(&made[1], "client_id"));
    let listed = operated.says(&["credential", "list", "--owner", "bob"]);
    assert!(listed.contains(his) && !listed.contains(hers), "{listed}");
    for command in [
        &["credential", "show", hers][..],
        &["credential", "edit", hers, "--name", "mine"],
        &["credential", "secret", hers, "--end-tokens"],
        &["credential", "delete", hers],
    ] {
        let outcome = operated.run(&[command, &["--owner", "bob"]].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{command:?}: {outcome:?}");
        assert!(outcome.err.contains("there is no such credential"), "{command:?}: {outcome:?}");
    }
    operated.token(&made[0]);
    operated.says(&["credential", "delete", hers, "--owner", "alice"]);
}

#[test]
fn a_credential_whose_tokens_carry_nothing_is_created_with_a_warning() {
    let operated = Operated::start("");
    operated.says(&["user", "create", "alice", "--role", "case-reader"]);
    let create = ["credential", "create", "--name", "Robot", "--owner", "alice"];
    for form in [&[][..], &["--json"]] {
        let outcome = operated.run(&[&create[..], form].concat());
        let client_id = match form {
            [] => outcome.out.lines().next().unwrap().strip_prefix("client id      ").unwrap().to_owned(),
            _ => {
                let made: Value = serde_json::from_str(&outcome.out).unwrap();
                assert_eq!(operated.opens("/cases/1", &operated.token(&made)), 403, "as the warning says");
                text(&made, "client_id").to_owned()
            }
        };
        let warning = format!(
            "warning: credential {client_id}: its tokens carry no roles and no scopes, so routes that require roles \
             or scopes reject them with 403; delete it, and create one with --role or --scope\n"
        );
        assert_eq!((outcome.code, outcome.err), (0, warning));
    }
    for given in [["--role", "case-reader"], ["--scope", "read:deals"]] {
        operated.says(&[&create[..], &given].concat());
    }
}

#[test]
fn what_cannot_be_done_is_said_in_plain_words() {
    let operated = Operated::start("");
    operated.says(&["user", "create", "alice", "--role", "r"]);
    let create = |more: &[&'static str]| [&["credential", "create", "--name", "x"][..], more].concat();
    for (arguments, code, word) in [
        (vec!["user", "create", "alice"], 1, "is already in use by another user"),
        (vec!["user", "create", "app_x"], 1, "`id`"),
        (vec!["user", "create", "bob", "--role", ""], 1, "`roles`"),
        (vec!["user", "show", "bob"], 1, "no such user"),
        (vec!["user", "show", "../reload"], 1, "no such user"),
        (vec!["user", "roles", "bob", "--none"], 1, "no such user"),
        (vec!["user", "delete", "bob"], 1, "no such user"),
        (vec!["user", "password", "bob"], 1, "no such user"),
        (vec!["user", "password", "bob", "--remove"], 1, "no such user"),
        (create(&["--owner", "bob"]), 1, "`owner`"),
        (create(&["--owner", "alice", "--role", "s"]), 1, "`roles`"),
        (create(&["--owner", "alice", "--scope", "s"]), 1, "`scopes`"),
        (create(&["--owner", "alice", "--expires-at", "2020-01-01T00:00:00Z"]), 1, "`expires_at`"),
        (vec!["credential", "show", "app_x"], 1, "no such credential"),
        (vec!["credential", "edit", "app_x", "--name", "y"], 1, "no such credential"),
        (vec!["credential", "secret", "app_x"], 1, "no such credential"),
        (vec!["credential", "delete", "app_x"], 1, "no such credential"),
        (vec!["user"], 2, "Usage"),
        (vec!["user", "create"], 2, "<ID>"),
        (vec!["user", "show", ""], 2, "<ID>"),
        (vec!["user", "roles", "alice"], 2, "--role"),
        (vec!["user", "roles", "alice", "--none", "--role", "r"], 2, "--none"),
        (vec!["user", "rename", "alice"], 2, "rename"),
        (vec!["user", "password"], 2, "<ID>"),
        (vec!["user", "password", "alice", "a password"], 2, "a password"),
        (vec!["user", "password", "alice", "--stdin", "--remove"], 2, "--remove"),
        (vec!["credential"], 2, "Usage"),
        (create(&[]), 2, "--owner"),
        (create(&["--owner", "alice", "--expires-at", "30d"]), 2, "RFC 3339"),
        (vec!["credential", "edit", "app_x"], 2, "--expires-at"),
        (vec!["credential", "edit", "app_x", "--no-expiry", "--expires-at", "1"], 2, "--no-expiry"),
        (vec!["credential", "secret", "app_x", "--overlap", "30"], 2, "unit"),
        (vec!["credential", "show"], 2, "<CLIENT_ID>"),
    ] {
        let outcome = operated.run(&arguments);
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.contains(word), "{word} in {arguments:?}: {outcome:?}");
    }
    assert_eq!(operated.json(&["user", "list"])["items"].as_array().unwrap().len(), 1);
    assert_eq!(operated.says(&["credential", "list"]), "there are no credentials\n");
    for arguments in [
        &["user", "--help"][..],
        &["user", "roles", "--help"],
        &["user", "password", "--help"],
        &["credential", "--help"],
        &["credential", "create", "--help"],
    ] {
        let outcome = portcullis(arguments);
        assert!(outcome.code == 0 && outcome.out.contains("--token-file"), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn a_gate_that_issues_no_tokens_says_so() {
    let upstream = RawUpstream::start();
    let issuer = testkit::tokens::Issuer::new();
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
    let token_file = settings.file("admin.token", ADMIN_TOKEN);
    let gate = Gate::start(&settings);
    let admin = format!("http://{}", gate.admin);
    for command in ["user", "credential"] {
        let place = ["--admin", &admin, "--token-file", path_text(&token_file)];
        let outcome = portcullis(&[&[command, "list"][..], &place].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{outcome:?}");
        assert!(outcome.err.contains("[authority]"), "{outcome:?}");
    }
}

#[test]
fn at_no_level_the_log_tells_a_secret_or_who_somebody_is() {
    let operated = Operated::start("log_level = \"trace\"");
    let person = "very.secret.person@example.com";
    operated.says(&["user", "create", person, "--name", "Ada Secret", "--role", "r"]);
    let made = operated.json(&[
        "credential",
        "create",
        "--name",
        "Robot of Ada",
        "--owner",
        person,
        "--tenant",
        "tenant-0815",
        "--scope",
        "read:deals",
    ]);
    let client_id = text(&made, "client_id");
    let renewed = operated.json(&["credential", "secret", client_id, "--overlap", "1h"]);
    let tokens = [operated.token(&made), operated.token(&renewed)];
    tokens.iter().for_each(|token| assert_eq!(operated.opens("/", token), 200));
    operated.ask(client_id, "a-wrong-secret-0123456789");
    operated.says(&["credential", "edit", client_id, "--name", "Robot of Lovelace", "--owner", person]);
    operated.says(&["user", "roles", person, "--none"]);
    operated.says(&["credential", "list", "--owner", person]);
    operated.says(&["credential", "delete", client_id]);
    operated.says(&["user", "delete", person]);

    operated.gate.log().wait_for("the record of the last call", |record| {
        field(record, "method") == Some("DELETE") && field(record, "path") == Some("/v1/users/{id}")
    });
    let (log, metrics) = (operated.gate.log().text(), operated.gate.telemetry("/metrics").text());
    assert!(log.lines().filter(|line| line.contains("admin call")).count() >= 8, "there is a log to look at");
    let mut secrets =
        vec![ADMIN_TOKEN, "a-wrong-secret", "very.secret", "Ada Secret", "Robot of", "tenant-0815"];
    secrets.extend([&made, &renewed].map(|document| text(document, "client_secret")));
    secrets.extend(tokens.iter().flat_map(|token| token.split('.').skip(1)).map(|part| &part[..20]));
    for secret in secrets {
        for (place, text) in [("log", &log), ("metrics", &metrics)] {
            let found = text.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{secret:?} in the {place}: {found:?}");
        }
    }
}
