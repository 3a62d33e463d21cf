//! A gate that is killed while administrators make changes: whatever was revoked is unusable once the change is
//! stored, and what was acknowledged stays.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::authority::stage::{App, Stage, part};
use testkit::eventually;
use testkit::operator::admin_call;
use testkit::wire::Wire;

const ROUNDS: u32 = 20;
/// The interval between the moments at which the gate is killed.
const STEP: Duration = Duration::from_micros(1500);

/// A user with an application and its token, some of which is about to be revoked.
struct Case {
    user: String,
    app: App,
    token: String,
}

fn case(stage: &Stage, name: &str, round: u32) -> Case {
    let user = format!("{name}-{round}");
    stage.user(&user, &["case-reader", "case-writer"]);
    let app = stage.credential(&json!({
        "name": name, "owner": user, "roles": ["case-reader", "case-writer"], "scopes": ["read:deals"],
    }));
    let token = stage.token(&app);
    assert_eq!(stage.api("/any/thing", &token), 200);
    Case { user, app, token }
}

/// Sends calls concurrently, kills the gate after a while or once all have been answered, and returns the
/// response to each call, if there was one.
fn killed_during(stage: &mut Stage, after: Option<Duration>, calls: &[String]) -> Vec<Option<Value>> {
    let mut wires: Vec<Wire> = calls.iter().map(|_| Wire::plain(stage.gate.admin)).collect();
    for (wire, call) in wires.iter_mut().zip(calls) {
        wire.send(call).unwrap();
    }
    let readers: Vec<_> = wires
        .into_iter()
        .map(|mut wire| {
            thread::spawn(move || {
                let answer = wire.answer().ok()?;
                assert!((200..300).contains(&answer.status()), "{}", answer.text());
                Some(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
            })
        })
        .collect();
    match after {
        // Not to wait for anything: each round strikes at another moment.
        Some(after) => testkit::let_pass(after),
        None => eventually("all calls are answered", || {
            readers.iter().all(thread::JoinHandle::is_finished).then_some(())
        }),
    }
    stage.gate.signal("KILL");
    stage.gate.wait_for_exit(testkit::PATIENCE);
    readers.into_iter().map(|reader| reader.join().unwrap()).collect()
}

fn rounds(state: &str) {
    let mut stage = Stage::planned(|plan| {
        plan.authority("failures_per_client = 1000000\nfailures_per_address = 1000000").toml(state)
    });
    let bystander = case(&stage, "bystander", 0);
    for round in 0..=ROUNDS {
        let names = ["demoted", "deleted", "renewed", "gone"];
        let [demoted, deleted, renewed, gone] = names.map(|name| case(&stage, name, round));
        let credential = |case: &Case| format!("/v1/credentials/{}", case.app.id);
        let calls = [
            ("PUT", format!("/v1/users/{}/roles", demoted.user), json!({"roles": ["case-reader"]})),
            ("DELETE", credential(&deleted), Value::Null),
            ("POST", format!("{}/secret", credential(&renewed)), json!({"end_tokens": true})),
            ("DELETE", format!("/v1/users/{}", gone.user), Value::Null),
            ("POST", "/v1/credentials".to_owned(), json!({"name": "new", "owner": "bystander-0"})),
        ]
        .map(|(method, target, body)| {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            admin_call(method, &target, &body)
        });
        let after = (round < ROUNDS).then_some(STEP * round);
        let answers = killed_during(&mut stage, after, &calls);
        assert!(after.is_some() || answers.iter().all(Option::is_some), "the last round is let through");
        stage = stage.restart();
        let [demotion, deletion, renewal, departure, creation] = answers.try_into().unwrap();
        let refused = |app: &App| stage.post("/oauth/token", &app.form("")).status() == 401;

        let stored =
            stage.admin("GET", &format!("/v1/users/{}", demoted.user), &Value::Null).json()["roles"].clone();
        let is_demoted = stored == json!(["case-reader"]);
        assert!(
            is_demoted || (demotion.is_none() && stored.as_array().unwrap().len() == 2),
            "{round}: {stored}"
        );
        let fresh = stage.token(&demoted.app);
        assert_eq!(part(&fresh, 1)["roles"], stored, "{round}: a new token has the roles that are stored");
        assert_eq!(stage.api("/any/thing", &fresh), 200, "{round}");

        let is_deleted = stage.admin("GET", &credential(&deleted), &Value::Null).status() == 404;
        assert!(is_deleted || deletion.is_none(), "{round}: an acknowledged deletion is undone");
        assert_eq!(refused(&deleted.app), is_deleted, "{round}");

        let is_renewed = refused(&renewed.app);
        if let Some(made) = &renewal {
            let secret = made["client_secret"].as_str().unwrap().to_owned();
            assert!(is_renewed, "{round}: the old secret is good after an acknowledged new one");
            stage.token(&App { secret, ..renewed.app.clone() });
        }

        let is_gone = stage.admin("GET", &format!("/v1/users/{}", gone.user), &Value::Null).status() == 404;
        assert!(is_gone || departure.is_none(), "{round}: an acknowledged deletion is undone");
        assert_eq!(refused(&gone.app), is_gone, "{round}: a user goes with its credentials");

        if let Some(made) = &creation {
            let member = |name: &str| made[name].as_str().unwrap().to_owned();
            stage.token(&App { id: member("client_id"), secret: member("client_secret") });
        }
        for (case, changed) in
            [(&demoted, is_demoted), (&deleted, is_deleted), (&renewed, is_renewed), (&gone, is_gone)]
        {
            let status = stage.api("/any/thing", &case.token);
            assert!(
                status == 401 || (status == 200 && !changed),
                "{round}: {}: {changed} {status}",
                case.user
            );
        }
        assert_eq!(
            stage.api("/any/thing", &bystander.token),
            200,
            "{round}: keys and the tokens of others live on"
        );
    }
}

#[test]
fn a_gate_killed_at_any_moment_leaves_no_change_half_done() {
    rounds("");
}

#[test]
fn nor_when_the_authority_and_the_state_are_in_files_of_their_own() {
    rounds("[state]\npath = \"state.db\"\n");
}

#[test]
fn a_state_in_memory_forgets_what_ended_tokens_and_refuses_all_of_before() {
    let mut stage = Stage::planned(|plan| plan.toml("[state]\nstore = \"memory\"\n"));
    let ended = case(&stage, "demoted", 0);
    let roles = json!({"roles": ["case-reader"]});
    assert_eq!(stage.admin("PUT", "/v1/users/demoted-0/roles", &roles).status(), 200);
    let other = case(&stage, "bystander", 0);
    // What counts is the second in which the gate starts.
    let issued = part(&other.token, 1)["iat"].as_i64().unwrap();
    eventually("the next second", || (testkit::now() > issued).then_some(()));
    stage = stage.restart();
    for case in [&ended, &other] {
        assert_eq!(stage.api("/any/thing", &case.token), 401, "{}", case.user);
        assert_eq!(stage.api("/any/thing", &stage.token(&case.app)), 200, "{} asks again", case.user);
    }
}
