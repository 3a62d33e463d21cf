//! Reloads of a running authority, and what commands report about its configuration.

use serde_json::{Value, json};

use crate::authority::stage::{Stage, kid, part};
use testkit::gate::{Outcome, check, path_text, portcullis};
use testkit::tokens::Issuer;
use testkit::wire::Answer;

fn scopes(answer: &Answer) -> Value {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    part(answer.json()["access_token"].as_str().unwrap(), 1)["scope"].clone()
}

/// Holds docs/configuration.md, Settings: authority.token_path, .token_lifetime
#[test]
fn scopes_lifetime_path_and_algorithm_change_at_once() {
    let stage = Stage::start();
    let app = stage.robot();
    let before = stage.token(&app);
    let writer = json!({"name": "Writer", "owner": "ada", "scopes": ["write:deals"]});
    assert_eq!(stage.admin("POST", "/v1/credentials", &writer).status(), 400, "there is no such scope");
    assert_eq!(scopes(&stage.post("/oauth/token", &app.form(""))), "read:deals read:activity");

    let changed = stage.plan.clone().authority(
        "scopes = [\"read:deals\", \"write:deals\"]\ntoken_lifetime = \"90s\"\ntoken_path = \"/token\"\n\
         signing_algorithm = \"EdDSA\"\ntenant_parameter = \"tenant_id\"",
    );
    let reloaded = stage.reload(&changed.settings());
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    assert_eq!(
        stage.post("/oauth/token", &app.form("")).status(),
        401,
        "no path of the authority, and no route"
    );
    assert_eq!(
        stage.post("/token", &app.form("")).json()["error"],
        "invalid_request",
        "a tenant is asked for"
    );
    let document = json!({
        "name": "Writer", "owner": "ada", "scopes": ["write:deals", "read:deals"], "tenant": "acme",
    });
    let writer = stage.credential(&document);
    let form = writer.form("&tenant_id=acme");
    let token = testkit::eventually("the other algorithm signs", || {
        let answer = stage.post("/token", &form);
        assert_eq!(scopes(&answer), "write:deals read:deals");
        assert_eq!(answer.json()["expires_in"], 90);
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        (part(&token, 0)["alg"] == "EdDSA").then_some(token)
    });
    for token in [&before, &token] {
        assert_eq!(stage.api("/deals/7", token), 200, "those of before are as good: {}", kid(token));
    }
    let metadata = stage.gate.get("/.well-known/oauth-authorization-server").send().json();
    assert_eq!(metadata["scopes_supported"], json!(["read:deals", "write:deals"]));
    assert_eq!(metadata["token_endpoint"], format!("{}/token", stage.issuer()));

    // A removed scope is no longer granted, not even to credentials that have it.
    let fewer = changed.authority("scopes = [\"read:deals\"]");
    assert_eq!(stage.reload(&fewer.settings()).status(), 200);
    assert_eq!(scopes(&stage.post("/token", &form)), "read:deals");
    let asked = format!("{form}&scope=write:deals");
    assert_eq!(stage.post("/token", &asked).json()["error"], "invalid_scope");
}

#[test]
fn what_would_make_another_authority_of_it_needs_a_restart() {
    let stage = Stage::start();
    let app = stage.robot();
    let token = stage.token(&app);
    let other = "issuer = \"https://other.example.com\"";
    let audience = format!("audiences = [\"{}\"]", stage.issuer());
    let plan = || stage.plan.clone();
    let rows = [
        ("another issuer", plan().authority(other).issuer(other).issuer(&audience).settings()),
        ("another file", plan().authority("path = \"other.db\"").settings()),
        ("no authority", plan().instead("").issuer(&Issuer::new())),
    ];
    for (name, settings) in rows {
        let answer = stage.reload(&settings);
        assert_eq!(answer.status(), 422, "{name}: {}", answer.text());
        let said = answer.text();
        for word in ["[authority]", "issuer", "path", "requires a restart"] {
            assert!(said.contains(word), "{name}: {word} in {said}");
        }
        assert_eq!(stage.api("/deals/7", &token), 200, "{name}: everything is as it was");
        assert_eq!(stage.api("/deals/7", &stage.token(&app)), 200, "{name}");
    }
    // Half of it is a mistake in the file, which `check` finds too.
    for (name, settings) in [
        (
            "an issuer only",
            plan().instead(&format!(
                "[[issuers]]\nissuer = \"{}\"\naudiences = [\"x\"]\nauthority = true\n",
                stage.issuer()
            )),
        ),
        ("another issuer in one place", plan().authority(other).settings()),
        ("an invalid path", plan().authority("token_path = \"token\"").settings()),
    ] {
        assert_eq!(stage.reload(&settings).status(), 422, "{name}");
        assert_eq!(check(&settings).code, 2, "{name}");
    }
    assert_eq!(stage.reload(&plan().settings()).status(), 200);

    let without = Stage::planned(|plan| plan);
    let (complete, bare) = (without.plan.settings(), without.plan.clone().instead("").issuer(&Issuer::new()));
    let gate = {
        drop(without.gate);
        testkit::gate::Gate::start(&bare)
    };
    complete.write();
    gate.signal("HUP");
    gate.wait_for_reloads("error", 1.0);
    let line = gate.log().wait_for_text("requires a restart");
    assert!(line.contains("[authority]"), "{line}");
    let answer = gate.request("POST", "/oauth/token").body("").send();
    assert_eq!(answer.status(), 401, "there is still none: {}", answer.text());
}

#[test]
fn check_lists_what_the_authority_answers_itself() {
    let stage =
        Stage::planned(|plan| plan.authority("token_path = \"/OAuth/Token\"\nsigning_algorithm = \"EdDSA\""));
    let outcome = check(&stage.plan.settings());
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{outcome:?}");
    let section = outcome.out.split("\nAuthority\n").nth(1).unwrap_or_else(|| panic!("{}", outcome.out));
    let section = section.split("\n\n").next().unwrap();
    let rows: Vec<Vec<&str>> = section.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        &["POST", "/OAuth/Token"][..],
        &["GET", "/oauth/authorize"],
        &["POST", "/oauth/revoke"],
        &["POST", "/oauth/introspect"],
        &["GET", "/.well-known/jwks.json"],
        &["GET", "/.well-known/oauth-authorization-server"],
    ] {
        assert!(rows.iter().any(|found| found.starts_with(row)), "{row:?} in {section}");
    }
    assert!(section.contains(stage.issuer()) && section.contains("EdDSA"), "{section}");
    assert!(!check(&stage.plan.clone().instead("").issuer(&Issuer::new())).out.contains("Authority"));
}

/// The verdict of `explain`.
fn explain(stage: &Stage, path: &str, token: &str) -> (Outcome, String) {
    let config = stage.gate.settings.folder().join("portcullis.toml");
    let outcome = portcullis(&["explain", "--config", path_text(&config), "--path", path, token]);
    let verdict = outcome.out.lines().last().unwrap_or_default().to_owned();
    (outcome, verdict)
}

#[test]
fn explain_knows_the_authoritys_tokens_with_and_without_a_gate() {
    let mut stage = Stage::start();
    explained(&mut stage, "denied: role_changed");
}

#[test]
fn explain_works_with_a_state_in_memory_and_with_one_in_another_file() {
    let mut apart = Stage::planned(|plan| plan.toml("[state]\npath = \"state.db\"\n"));
    explained(&mut apart, "denied: role_changed");
    let mut memory = Stage::planned(|plan| plan.toml("[state]\nstore = \"memory\"\n"));
    explained(&mut memory, "allowed, as far as could be checked");
}

/// `ended` is the verdict on a token whose owner's roles have changed.
fn explained(stage: &mut Stage, ended: &str) {
    let app = stage.robot();
    let token = stage.token(&app);
    let unchecked = ended.starts_with("allowed");
    let allowed = if unchecked { ended } else { "allowed" };
    for running in [true, false] {
        if !running {
            stage.gate.signal("TERM");
            assert_eq!(stage.gate.wait_for_exit(testkit::PATIENCE).code(), Some(0));
        }
        let (outcome, verdict) = explain(stage, "/deals/7", &token);
        assert_eq!((outcome.code, verdict.as_str()), (0, allowed), "running: {running}: {outcome:?}");
        let (outcome, verdict) = explain(stage, "/users", &token);
        assert_eq!((outcome.code, verdict.as_str()), (1, "denied: insufficient_scope"), "{outcome:?}");
        let forged = format!("{}.{}", &token[..token.rfind('.').unwrap()], "A".repeat(86));
        let (outcome, verdict) = explain(stage, "/deals/7", &forged);
        assert_eq!((outcome.code, verdict.as_str()), (1, "denied: bad_signature"), "{outcome:?}");
        let signature = token.rsplit('.').next().unwrap();
        assert!(!outcome.out.contains(signature) && !outcome.err.contains(signature));
    }
    stage.gate = testkit::gate::Gate::start(&stage.plan.settings());
    let changed = stage.admin("PUT", "/v1/users/ada/roles", &json!({"roles": ["case-reader"]}));
    assert_eq!(changed.status(), 200, "{}", changed.text());
    let (outcome, verdict) = explain(stage, "/deals/7", &token);
    assert_eq!((outcome.code, verdict.as_str()), (i32::from(!unchecked), ended), "{outcome:?}");
    let answer =
        stage.admin("POST", "/v1/explain", &json!({"token": token, "method": "GET", "path": "/deals/7"}));
    assert_eq!(answer.json()["allowed"], false, "the running gate knows: {}", answer.text());
}

#[test]
fn the_algorithm_of_the_authority_and_those_of_its_issuer_change_together() {
    let stage = Stage::start();
    let app = stage.robot();
    let old = stage.token(&app);
    let mut token = old.clone();
    for (signing, accepted) in [
        ("EdDSA", "[\"EdDSA\"]"),
        ("RS256", "[\"RS256\", \"EdDSA\"]"),
        ("ES256", "[\"ES256\"]"),
        ("ES256", "[\"ES256\", \"EdDSA\", \"RS256\"]"),
    ] {
        let changed = stage
            .plan
            .clone()
            .authority(&format!("signing_algorithm = \"{signing}\""))
            .issuer(&format!("algorithms = {accepted}"));
        assert_eq!(check(&changed.settings()).code, 0, "{accepted}");
        let reloaded = stage.reload(&changed.settings());
        assert_eq!(reloaded.status(), 200, "{accepted}: {}", reloaded.text());
        let before = std::mem::replace(&mut token, stage.token(&app));
        assert_eq!(part(&token, 0)["alg"], signing, "from the first token on");
        assert_eq!(stage.api("/deals/7", &token), 200, "{accepted}");
        let survives = accepted.contains(part(&before, 0)["alg"].as_str().unwrap());
        assert_eq!(stage.api("/deals/7", &before) == 200, survives, "{accepted}: {}", kid(&before));
    }
    assert_eq!(stage.api("/deals/7", &old), 200, "its key was kept all the time");

    // What is refused for another reason leaves the key that signs.
    let refused = stage.plan.clone().authority("signing_algorithm = \"EdDSA\"").settings();
    let refused = refused.toml("[[issuers]]\nissuer = \"x\"\n");
    assert_eq!(stage.reload(&refused).status(), 422);
    assert_eq!(part(&stage.token(&app), 0)["alg"], "ES256");
}

#[test]
fn nothing_is_signed_by_a_key_that_the_gate_does_not_know() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    let stage = Stage::planned(|plan| plan.server("workers = 2"));
    let app = stage.robot();
    let (stop, used) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let token = stage.token(&app);
                    assert_eq!(stage.api("/deals/7", &token), 200, "{}", part(&token, 0));
                    used.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..12 {
            let algorithm = ["EdDSA", "ES256"][round % 2];
            let changed = stage.plan.clone().authority(&format!("signing_algorithm = \"{algorithm}\""));
            let before = used.load(Ordering::SeqCst);
            let answer = stage.reload(&changed.settings());
            assert_eq!(answer.status(), 200, "{}", answer.text());
            testkit::eventually("tokens are used", || {
                (used.load(Ordering::SeqCst) > before + 3).then_some(())
            });
        }
        stop.store(true, Ordering::SeqCst);
    });
}
