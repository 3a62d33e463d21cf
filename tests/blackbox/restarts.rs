//! What a restart preserves and what it does not: key sets during an outage, and a store in memory.

use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::issuer::{Answer, KeyServer, Source};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{eventually, now, now_ms};

use serde_json::json;

#[test]
fn a_restart_while_the_issuer_is_away_serves_by_the_stored_keys_until_they_are_too_old() {
    const MAX_STALE: i64 = 8_000;
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let server = KeyServer::start(issuer.jwks());
    let keys = "refresh_interval = \"300ms\"\nrefresh_cooldown = \"100ms\"\nmax_stale = \"8s\"";
    let settings = Settings::plaintext()
        .upstream("api", &app.url(), "")
        .issuer_from(&issuer, &Source::Url(server.jwks_url()), keys)
        .route("/{*rest}", "")
        .admin()
        .toml("[state]\npath = \"state.db\"\non_empty = \"trust\"\n");
    let status = |gate: &Gate| gate.get("/").token(&issuer.good()).send().status();

    let before = now_ms();
    let mut gate = Gate::start(&settings);
    assert_eq!(status(&gate), 200);
    gate.stop();
    server.set(Answer::HangUp);

    let mut gate = Gate::start(&settings);
    assert_eq!(status(&gate), 200, "by the stored keys");
    let failed = [("result", "error")];
    gate.wait_for_metric("the issuer is asked in vain", |metrics| {
        (metrics.sum("portcullis_keys_refresh_total", &failed) >= 1.0).then_some(())
    });
    gate.kill();
    let gate = Gate::launch(&settings);
    let too_old = eventually("the keys are too old", || (status(&gate) == 503).then(now_ms));
    assert!(too_old > before + MAX_STALE, "refused too early");
    gate.wait_for_metric("age counts from the fetch, not from a restart", |metrics| {
        (metrics.sum("portcullis_keys_age_seconds", &[]) > 8.0).then_some(())
    });
    assert_eq!(gate.reason(&issuer.good()), "unavailable/keys_unavailable");
    assert_eq!(gate.readiness().0, 503);
    drop(gate);

    let gate = Gate::launch(&settings);
    assert_eq!((status(&gate), gate.readiness().0), (503, 503), "a restart makes old keys no younger");
    server.set_keys(issuer.jwks());
    gate.wait_until_ready();
    assert_eq!(status(&gate), 200);
}

/// Holds docs/configuration.md, Settings: state.store, .path
#[test]
fn a_store_in_memory_refuses_at_each_restart_what_was_issued_before_it() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings =
        Settings::plaintext().guarding(&app.url(), &issuer).admin().toml("[state]\nstore = \"memory\"\n");
    let mut before = None;
    for round in 0..2 {
        let gate = Gate::start(&settings);
        gate.log().wait_for_text("empty at every start: tokens issued before now are rejected");
        let older = before.unwrap_or_else(|| issuer.token().claim("iat", now() - 60).build());
        assert_eq!(gate.reason(&older), "before_state", "round {round}");
        let answer = gate.get("/anything").token(&older).send();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.json()["error"], "invalid_token");
        let said = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(said.contains("older than") && !said.contains("revoked"), "words of its own: {said}");
        let fresh = issuer.good();
        assert_eq!(gate.get("/anything").token(&fresh).send().status(), 200, "issued since the start");
        // The next gate starts in a later second than this token is from.
        let issued = now();
        eventually("the second is over", || (now() > issued).then_some(()));
        before = Some(fresh);
    }
    assert!(!settings.folder().join("portcullis.db").exists(), "nothing is kept");
}

/// Holds docs/configuration.md, Settings: state.on_empty
#[test]
fn a_store_in_memory_that_trusts_forgets_what_was_revoked_and_says_so() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext()
        .guarding(&app.url(), &issuer)
        .admin()
        .toml("[state]\nstore = \"memory\"\non_empty = \"trust\"\n");
    let token = issuer.token().claim("iat", now() - 60).build();
    let gate = Gate::start(&settings);
    gate.log().wait_for_text("empty at every start: revoked tokens are accepted again");
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    assert_eq!(gate.reason(&token), "subject_revoked");
    drop(gate);
    let gate = Gate::start(&settings);
    gate.log().wait_for_text("revoked tokens are accepted again");
    assert_eq!(gate.get("/anything").token(&token).send().status(), 200);
}

/// Holds docs/configuration.md, Settings: state.store, .path
/// Holds docs/configuration.md, Settings: state.on_empty
#[test]
fn a_store_that_was_lost_refuses_what_was_issued_before_the_new_one() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings =
        Settings::plaintext().guarding(&app.url(), &issuer).admin().toml("[state]\npath = \"state.db\"\n");
    let mut gate = Gate::start(&settings);
    let token = issuer.good();
    assert_eq!(gate.get("/anything").token(&token).send().status(), 200);
    let issued = now();
    gate.stop();
    let kept = Gate::start(&settings);
    assert_eq!(kept.get("/anything").token(&token).send().status(), 200, "the same store");
    drop(kept);
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        drop(std::fs::remove_file(settings.folder().join(name)));
    }
    eventually("the second is over", || (now() > issued).then_some(()));
    let gate = Gate::start(&settings);
    assert_eq!(gate.reason(&token), "before_state");
    assert_eq!(gate.get("/anything").token(&issuer.good()).send().status(), 200);
}
