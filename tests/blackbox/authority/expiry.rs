//! Credentials and secrets that expire: decided by the current wall clock, and not lost by a wrong one.

use serde_json::{Value, json};

use crate::authority::stage::{App, Plan, Stage};

/// Accepts tokens issued before the store was created by a clock that is behind, so that the remaining checks decide.
fn trusting(plan: Plan) -> Plan {
    plan.authority("token_lifetime = \"6h\"")
        .toml("[state]\npath = \"authority.db\"\non_empty = \"trust\"\n[sessions]\nidle_timeout = \"24h\"")
}

#[test]
fn a_wrong_clock_ends_no_credential_and_no_old_secret_for_good() {
    for (offset, is_valid) in [("-10y", true), ("-1h", true), ("+2h", false), ("+10y", false)] {
        let stage = Stage::planned(trusting);
        stage.user("ada", &[]);
        let old = stage.credential(&json!({"name": "Robot", "owner": "ada"}));
        let renewed =
            stage.admin("POST", &format!("/v1/credentials/{}/secret", old.id), &json!({"overlap": "1h"}));
        let new = App { secret: renewed.json()["client_secret"].as_str().unwrap().to_owned(), ..old.clone() };
        let soon = testkit::now() + 3_600;
        let ending = json!({"name": "Ending", "owner": "ada", "expires_at": rfc3339(soon)});
        let ending = stage.credential(&ending);

        let stage = stage.restart_with_clock(offset);
        let status = |stage: &Stage, app: &App| stage.post("/oauth/token", &app.form("")).status();
        let expected = if is_valid { 200 } else { 401 };
        assert_eq!(status(&stage, &new), 200, "{offset}");
        assert_eq!(status(&stage, &old), expected, "{offset}: the old secret, by the clock of the moment");
        assert_eq!(status(&stage, &ending), expected, "{offset}: the credential, by the clock of the moment");
        // A change at that time writes the whole credential again.
        for app in [&old, &ending] {
            let renamed =
                stage.admin("PATCH", &format!("/v1/credentials/{}", app.id), &json!({"name": "Other"}));
            assert_eq!(renamed.status(), 200, "{offset}: {}", renamed.text());
        }
        let stage = stage.restart();
        for app in [&new, &old, &ending] {
            assert_eq!(status(&stage, app), 200, "{offset}: all are there by the right clock");
        }
        let listed = stage.admin("GET", "/v1/credentials", &Value::Null).json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{offset}");
    }
}

#[test]
fn what_ends_while_the_clock_is_behind_stays_ended() {
    // By a start, and by a step of a running gate.
    for (start, step) in [("-20s", "-20s"), ("-1h", "-1h"), ("+0", "-20s"), ("+0", "-1h")] {
        let stage = Stage::planned(trusting);
        stage.user("ada", &["case-reader", "case-writer"]);
        stage.user("bob", &[]);
        let app = |owner: &str| stage.credential(&json!({"name": "Robot", "owner": owner}));
        let [gone, renewed, demoted, of_bob] = [app("ada"), app("ada"), app("ada"), app("bob")];
        let stage = if start == "+0" { stage.restart_with_clock("+0") } else { stage };
        let tokens = [&gone, &renewed, &of_bob, &demoted].map(|app| stage.token(app));
        let stage = if start == "+0" { stage } else { stage.restart_with_clock(start) };
        stage.step_clock(step);
        let call = |method: &str, target: String, body: Value| {
            let answer = stage.admin(method, &target, &body);
            assert!((200..300).contains(&answer.status()), "{target}: {}", answer.text());
        };
        call("DELETE", format!("/v1/credentials/{}", gone.id), Value::Null);
        call("POST", format!("/v1/credentials/{}/secret", renewed.id), json!({"end_tokens": true}));
        call("DELETE", "/v1/users/bob".to_owned(), Value::Null);
        let stage = stage.restart();
        // A clock that is further behind than ten minutes does not end tokens of those who may get new ones.
        let ended = if step == "-20s" { 3 } else { 1 };
        for (place, token) in tokens.iter().enumerate().take(ended) {
            assert_eq!(stage.api("/any/thing", token), 401, "{start} {step}: {place}");
        }
        assert_eq!(stage.api("/any/thing", &tokens[3]), 200, "{start} {step}: nothing ended it");
        let roles = stage.admin("PUT", "/v1/users/ada/roles", &json!({"roles": []}));
        assert_eq!((roles.status(), stage.api("/any/thing", &tokens[3])), (200, 401), "{start} {step}");
    }
}

fn rfc3339(seconds: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let ((hour, minute, second), month) = (moment.to_hms(), u8::from(moment.month()));
    format!("{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", moment.year(), moment.day())
}
