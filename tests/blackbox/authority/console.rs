//! The console: its pages in a real Chromium (`tests/node/console.mjs` runs the scenarios and counts its
//! checks), and the exact bytes of its visits, cookies and headers.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::stage::Stage;
use testkit::settings::ADMIN_TOKEN;
use testkit::tools::node_modules;
use testkit::wire::{Answer, Wire};

const PASSWORD: &str = "correct horse battery staple";
/// The same text as in the script.
const HOSTILE: &str = "<script>document.title=\"owned\"</script>\"'&amp;";

/// A stage with two users who can sign in.
fn stage() -> Stage {
    staged(Stage::start())
}

fn staged(stage: Stage) -> Stage {
    stage.user("ada", &["case-reader", "case-writer"]);
    stage.user("bob", &["case-writer"]);
    for user in ["ada", "bob"] {
        password(&stage, user, PASSWORD);
    }
    stage
}

#[track_caller]
fn password(stage: &Stage, user: &str, password: &str) {
    let set = stage.admin("PUT", &format!("/v1/users/{user}/password"), &json!({ "password": password }));
    assert_eq!(set.status(), 204, "{}", set.text());
}

/// Runs a scenario in a browser; returns the number of its checks, and its output.
#[track_caller]
fn play(stage: &Stage, scenario: &str, more_paths: &str) -> (u32, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command
        .arg(root.join("tests/node/console.mjs"))
        .env("ISSUER", stage.issuer())
        .env("CONSOLE", format!("http://{}", stage.gate.admin))
        .env("ADMIN_TOKEN", ADMIN_TOKEN)
        .env("SCENARIO", scenario)
        .env("MORE_PATHS", more_paths)
        .env("NODE_MODULES", node_modules())
        .env("NODE_EXTRA_CA_CERTS", stage.gate.settings.folder().join("ca.pem"))
        .stdin(Stdio::null());
    if let Some(shots) = std::env::var_os("PORTCULLIS_SCREENSHOTS") {
        command.env("SHOTS", shots);
    }
    let output = command.output().unwrap_or_else(|error| panic!("node: {error}; tests/run installs it"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{scenario}: {}\n{out}\n{err}", output.status);
    let checks =
        out.lines().last().and_then(|last| last.strip_suffix(" checks")).and_then(|n| n.parse().ok());
    (checks.unwrap_or_else(|| panic!("{scenario}: {out}\n{err}")), out.into_owned())
}

#[test]
fn a_user_makes_a_credential_and_a_role_that_is_taken_away_ends_its_token() {
    assert_eq!(play(&stage(), "robot", "").0, 18);
}

#[test]
fn an_operator_makes_a_credential_of_a_tenant_whose_scopes_open_their_own_endpoints() {
    let stage = Stage::planned(|plan| plan.authority("tenant_parameter = \"registration\""));
    assert_eq!(play(&staged(stage), "scopes", "").0, 7);
}

#[test]
fn a_credential_is_edited_gets_new_secrets_and_is_deleted() {
    assert_eq!(play(&stage(), "upkeep", "").0, 18);
}

#[test]
fn every_page_is_accessible_in_light_and_dark_and_on_a_phone() {
    let stage = stage();
    let app = stage.credential(
        &json!({ "name": "Robot", "owner": "ada", "roles": ["case-reader"], "scopes": ["read:deals"] }),
    );
    let token = stage.token(&app);
    assert_eq!(stage.api("/deals/7", &token), 200);
    assert_eq!(stage.api("/deals/7", "wrong"), 401);
    let of_app = format!("/console/credentials/{}", app.id);
    let more = [
        of_app.clone(),
        format!("{of_app}/delete"),
        "/console/credentials/new".to_owned(),
        "/console/credentials/new?owner=ada".to_owned(),
        "/console/users/ada".to_owned(),
        "/console/users/ada/delete".to_owned(),
    ];
    assert!(play(&stage, "pages", &more.join(" ")).0 > 100);
}

#[test]
fn a_keyboard_is_enough() {
    assert_eq!(play(&stage(), "keyboard", "").0, 10);
}

#[test]
fn credentials_need_no_javascript() {
    assert_eq!(play(&stage(), "plain", "").0, 7);
}

#[test]
fn two_users_see_their_own_credentials_only() {
    assert_eq!(play(&stage(), "two", "").0, 17);
}

#[test]
fn hostile_names_are_text_and_forged_forms_change_nothing() {
    let stage = stage();
    stage.admin("PUT", "/v1/users/ada/roles", &json!({ "roles": ["case-reader", HOSTILE] }));
    assert_eq!(play(&stage, "hostile", "").0, 30);
}

#[test]
fn secrets_are_in_no_address_no_history_and_no_log_line() {
    let stage = Stage::planned(|plan| plan.telemetry("log_level = \"trace\""));
    let stage = staged(stage);
    let (checks, out) = play(&stage, "secrets", "");
    assert!(checks >= 5, "{out}");
    let secret = out.lines().find_map(|line| line.strip_prefix("SECRET ")).unwrap();
    let log = stage.gate.log().text();
    for quiet in [secret, PASSWORD, ADMIN_TOKEN] {
        assert!(!log.contains(quiet), "a secret is in the log");
    }
}

/// Sends a request to the console with further header fields, and returns the response.
fn ask(stage: &Stage, method: &str, path: &str, fields: &str, form: &str) -> Answer {
    let length = if method == "POST" {
        format!("content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n", form.len())
    } else {
        String::new()
    };
    let request = format!("{method} {path} HTTP/1.1\r\nhost: gate\r\n{fields}{length}\r\n{form}");
    Wire::plain(stage.gate.admin).exchange(request).unwrap()
}

fn sign_in(stage: &Stage, form: &str) -> Answer {
    ask(stage, "POST", "/console/sign-in", "", form)
}

/// The `Cookie` field for a visit that a response has begun.
#[track_caller]
fn cookie(answer: &Answer) -> String {
    assert_eq!(answer.status(), 303, "{}", answer.text());
    let set = answer.field("set-cookie").unwrap();
    format!("cookie: {}\r\n", set.split(';').next().unwrap())
}

fn as_ada() -> String {
    format!("user=ada&password={}", PASSWORD.replace(' ', "+"))
}

fn page(stage: &Stage, cookie: &str) -> u16 {
    ask(stage, "GET", "/console/credentials", cookie, "").status()
}

#[test]
fn a_visit_ends_with_what_it_rests_on() {
    let stage = stage();
    // Signed in, then something changes; the next request is led to the sign-in page.
    let ends = |form: &str, change: &dyn Fn()| {
        let cookie = cookie(&sign_in(&stage, form));
        assert_eq!(page(&stage, &cookie), 200, "{form}");
        change();
        assert_eq!(page(&stage, &cookie), 303, "{form}");
        assert_eq!(ask(&stage, "POST", "/console/credentials/new", &cookie, "name=x").status(), 401);
    };
    ends(&as_ada(), &|| password(&stage, "ada", "another password"));
    ends("user=ada&password=another+password", &|| {
        assert_eq!(stage.admin("DELETE", "/v1/users/ada/password", &Value::Null).status(), 204);
    });
    ends(&as_ada().replace("ada", "bob"), &|| {
        assert_eq!(stage.admin("DELETE", "/v1/users/bob", &Value::Null).status(), 204);
    });
    let operator = cookie(&sign_in(&stage, &format!("token={ADMIN_TOKEN}")));
    assert_eq!(page(&stage, &operator), 200);
    let (file, text) = (stage.gate.settings.write(), stage.gate.settings.to_toml());
    std::fs::write(file, text.replace(ADMIN_TOKEN, "another-token-of-the-operators")).unwrap();
    stage.gate.wait_for_reloads("ok", 1.0);
    assert_eq!(page(&stage, &operator), 303, "the token is no longer configured");
}

/// Holds docs/operations.md, Failure modes: passwords of the console are guessed
#[test]
fn guessing_passwords_is_slowed_and_the_limit_holds_for_right_ones_too() {
    let stage = stage();
    let wrong = sign_in(&stage, "user=ada&password=wrong+password");
    assert_eq!(wrong.status(), 401);
    assert!(
        wrong.text().contains("The user or password is incorrect.") && wrong.text().contains("value=\"ada\"")
    );
    assert_eq!(sign_in(&stage, "user=nobody&password=wrong+password").status(), 401);
    let answers: Vec<u16> =
        (0..5).map(|_| sign_in(&stage, "user=ada&password=wrong+password").status()).collect();
    assert!(answers.contains(&429), "{answers:?}");
    let slowed = sign_in(&stage, &as_ada());
    assert_eq!(slowed.status(), 429);
    assert!(slowed.field("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok()));
    assert_eq!(sign_in(&stage, &as_ada().replace("ada", "bob")).status(), 303, "another user is not held up");
    assert_eq!(sign_in(&stage, "token=no-token-of-this-gate").status(), 401);
    assert_eq!(
        sign_in(&stage, &format!("token={}", "x".repeat(64 * 1024))).status(),
        400,
        "larger than any form"
    );
}

#[test]
fn every_answer_keeps_browsers_from_framing_sniffing_and_storing_it() {
    let stage = stage();
    let operator = cookie(&sign_in(&stage, &format!("token={ADMIN_TOKEN}")));
    for (path, cookie, status) in [
        ("/console/", "", 303),
        ("/console/sign-in", "", 200),
        ("/console/credentials", "", 303),
        ("/console/credentials", operator.as_str(), 200),
        ("/console/users", operator.as_str(), 200),
        ("/console/no-such-page", operator.as_str(), 404),
    ] {
        let answer = ask(&stage, "GET", path, cookie, "");
        assert_eq!(answer.status(), status, "{path}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.field(name), Some(value), "{path}");
        }
        let policy = answer.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    }
    let away = ask(
        &stage,
        "POST",
        "/console/sign-in",
        "",
        &format!("token={ADMIN_TOKEN}&next=https://evil.example/"),
    );
    assert_eq!(away.field("location"), Some("/console/"), "never to another site");
    let foreign = ask(&stage, "POST", "/console/sign-in", "origin: https://evil.example\r\n", &as_ada());
    assert_eq!(foreign.status(), 403);
}

#[test]
fn cookies_are_bound_to_the_host_and_unreadable_for_scripts() {
    let stage = stage();
    let plain = sign_in(&stage, &as_ada());
    let set = plain.field("set-cookie").unwrap();
    assert!(set.starts_with("portcullis-console="), "{set}");
    assert!(set.ends_with("; Path=/console; HttpOnly; SameSite=Strict"), "{set}");
    let out = {
        let cookie = cookie(&plain);
        let list = ask(&stage, "GET", "/console/credentials", &cookie, "");
        let csrf =
            list.text().split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let out = ask(&stage, "POST", "/console/sign-out", &cookie, &format!("csrf={csrf}"));
        assert_eq!(page(&stage, &cookie), 303, "signed out");
        out
    };
    assert!(out.field("set-cookie").is_some_and(|set| set.contains("Max-Age=0")));

    let stage = Stage::planned(|plan| {
        plan.toml("[admin.tls]\ncertificate = \"server.pem\"\nprivate_key = \"server.key\"\n")
    });
    let folder = stage.gate.settings.folder();
    let url = format!("https://{}/console/sign-in", stage.gate.admin);
    let ca = folder.join("ca.pem");
    let head = testkit::tools::run(
        "curl",
        &[
            "-sS",
            "-i",
            "--cacert",
            testkit::gate::path_text(&ca),
            "-d",
            &format!("token={ADMIN_TOKEN}"),
            &url,
        ],
    );
    let set = head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).unwrap();
    assert!(set.contains("__Host-portcullis-console="), "{set}");
    assert!(set.trim_end().ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"), "{set}");
}

/// Holds docs/configuration.md, Settings: console.enabled
#[test]
fn nobody_can_sign_in_without_a_token_or_a_password_and_a_reload_switches_the_console_off() {
    let stage = stage();
    assert_eq!(ask(&stage, "GET", "/console/sign-in", "", "").status(), 200);
    let (file, text) = (stage.gate.settings.write(), stage.gate.settings.to_toml());
    std::fs::write(&file, format!("{text}\n[console]\nenabled = false\n")).unwrap();
    stage.gate.wait_for_reloads("ok", 1.0);
    let off = ask(&stage, "GET", "/console/sign-in", "", "");
    assert_eq!((off.status(), off.field("content-type")), (404, Some("application/problem+json")));
    std::fs::write(&file, &text).unwrap();
    stage.gate.wait_for_reloads("ok", 2.0);
    assert_eq!(ask(&stage, "GET", "/console/sign-in", "", "").status(), 200, "and on again");
    for user in ["ada", "bob"] {
        stage.admin("DELETE", &format!("/v1/users/{user}/password"), &Value::Null);
    }
    assert!(
        !ask(&stage, "GET", "/console/sign-in", "", "").text().contains("f-password"),
        "no user can sign in"
    );
    let tokens = text.find("[[admin.tokens]]").unwrap();
    let end = text[tokens..].find("\n\n").map_or(text.len(), |end| tokens + end);
    std::fs::write(&file, format!("{}{}", &text[..tokens], &text[end..])).unwrap();
    stage.gate.wait_for_reloads("ok", 3.0);
    let nobody = ask(&stage, "GET", "/console/sign-in", "", "");
    assert_eq!(nobody.status(), 404);
    assert!(nobody.text().contains("Sign-in is not set up yet"), "{}", nobody.text());
    assert_eq!(nobody.field("x-frame-options"), Some("DENY"), "as every page");
}
