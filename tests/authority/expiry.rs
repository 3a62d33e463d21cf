//! Credentials and secrets that end: judged by the wall clock of the moment, and lost by no wrong one.

use serde_json::{Value, json};

use crate::stage::{App, Stage};

#[test]
fn a_wrong_clock_ends_no_credential_and_no_old_secret_for_good() {
    for (offset, is_valid) in [("-10y", true), ("-1h", true), ("+2h", false), ("+10y", false)] {
        let stage = Stage::start();
        stage.user("ada", &[]);
        let old = stage.credential(&json!({"name": "Robot", "owner": "ada"}));
        let renewed =
            stage.admin("POST", &format!("/v1/credentials/{}/secret", old.id), &json!({"overlap": "1h"}));
        let new = App { secret: renewed.json()["client_secret"].as_str().unwrap().to_owned(), ..old.clone() };
        let soon = crate::support::now() + 3_600;
        let ending = stage.credential(&json!({"name": "Ending", "owner": "ada"}));
        let edit = json!({"expires_at": rfc3339(soon)});
        let edited = stage.admin("PATCH", &format!("/v1/credentials/{}", ending.id), &edit);
        assert_eq!(edited.status(), 200, "{}", edited.text());

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

fn rfc3339(seconds: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let ((hour, minute, second), month) = (moment.to_hms(), u8::from(moment.month()));
    format!("{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", moment.year(), moment.day())
}
