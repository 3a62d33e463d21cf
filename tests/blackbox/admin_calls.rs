//! The admin API against its documentation: runs the examples of docs/admin.md, one after the other, and uses
//! `/openapi.json`, which a validator checks, and from which schemathesis calls a gate with valid and invalid
//! input (`tests/python/openapi.py`).

use std::process::{Command, Stdio};

use serde_json::Value;

use testkit::documents::blocks_under;
use testkit::settings::ADMIN_TOKEN;
use testkit::tools::{python, root};

use crate::authority::stage::Stage;

const PAGE: &str = "docs/admin.md";

/// A reader who follows the page, with the values learned on the way.
struct Follower {
    stage: Stage,
    /// Placeholders in commands, and their values.
    values: Vec<(&'static str, String)>,
}

impl Follower {
    /// Runs the commands under a heading; if the page shows a response, the real one must have the same members.
    fn follow(&mut self, heading: &str) {
        let blocks = blocks_under(PAGE, heading);
        let of_shell = blocks.iter().filter(|block| block.language == "console" && block.not_run.is_none());
        let mut said = String::new();
        for line in of_shell.flat_map(|block| block.text.lines()) {
            match line.strip_prefix("$ ") {
                Some("ADMIN=http://127.0.0.1:9443") => {}
                Some(command) => said = self.run(command),
                None => assert_eq!(members(&said), members(line), "the answer on the page and {said}"),
            }
            self.learn(&said);
        }
    }

    fn run(&self, command: &str) -> String {
        let printed = command;
        let command = self.values.iter().fold(command.to_owned(), |text, (from, to)| text.replace(from, to));
        let command = command.replacen("curl ", "curl -sS --fail-with-body --max-time 120 ", 1);
        let output = Command::new("bash")
            .args(["-c", &command])
            .current_dir(self.stage.gate.settings.folder())
            .env("ADMIN", format!("http://{}", self.stage.gate.admin))
            .env("PORTCULLIS_ADMIN_TOKEN", ADMIN_TOKEN)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{printed}: {out}\n{err}");
        out.into_owned()
    }

    /// Remembers the names of created objects from a response.
    fn learn(&mut self, said: &str) {
        let Ok(answer) = serde_json::from_str::<Value>(said) else { return };
        let made = [("app_…", &answer["client_id"]), ("revocations/17", &answer["sequence"])];
        for (printed, name) in made {
            let name =
                name.as_str().map(str::to_owned).or(name.as_u64().map(|it| format!("revocations/{it}")));
            self.values.extend(name.map(|name| (printed, name)));
        }
    }
}

/// The member names of a JSON object.
fn members(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    value.as_object().unwrap().keys().cloned().collect()
}

/// Runs docs/admin.md, Calls
/// Runs docs/admin.md, Events
/// Runs docs/admin.md, Revocations
/// Runs docs/admin.md, Sessions
/// Runs docs/admin.md, Explain
/// Runs docs/admin.md, Usage
/// Runs docs/admin.md, Users
/// Runs docs/admin.md, Credentials
/// Runs docs/admin.md, Configuration
#[test]
fn every_call_on_the_page_works() {
    let stage = Stage::start();
    let robot = stage.robot();
    stage.user("bob", &[]);
    let (used, other) = (stage.token(&robot), stage.token(&robot));
    assert_eq!(stage.api("/deals/7", &used), 200);
    let sessions = stage.gate.list("/v1/sessions?subject=ada");
    let session = sessions[0]["token"].as_str().unwrap()[..12].to_owned();
    stage.gate.settings.file("password.json", r#"{"password": "correct horse battery staple"}"#);
    let mut follower = Follower { stage, values: vec![("9f86d081884c", session), ("eyJ…", other)] };
    for heading in [
        "Calls",
        "Events",
        "Revocations",
        "Sessions",
        "Explain",
        "Usage",
        "Users",
        "Credentials",
        "Configuration",
    ] {
        follower.follow(heading);
    }
    assert_eq!(follower.stage.api("/deals/7", &used), 401, "its session was ended");
}

#[test]
fn the_description_is_for_callers_with_any_token() {
    let stage = Stage::start();
    let answer = stage.gate.operate("GET", "/openapi.json", None);
    assert_eq!((answer.status(), answer.field("content-type")), (200, Some("application/json")));
    let file = std::fs::read_to_string(root().join("src/admin/api/openapi.json")).unwrap();
    assert_eq!(answer.text(), file);
    let mut wire = testkit::wire::Wire::plain(stage.gate.admin);
    let refused = wire.exchange("GET /openapi.json HTTP/1.1\r\nHost: admin\r\n\r\n").unwrap();
    assert_eq!(refused.status(), 401);
}

#[test]
fn the_gate_answers_good_and_bad_calls_as_its_description_says() {
    let stage = Stage::start();
    stage.robot();
    let output = Command::new(python())
        .arg(root().join("tests/python/openapi.py"))
        .current_dir(stage.gate.settings.folder())
        .env("ADMIN", format!("http://{}", stage.gate.admin))
        .env("ADMIN_TOKEN", ADMIN_TOKEN)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
}
