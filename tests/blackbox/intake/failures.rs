//! Failures that are not the sender's fault: keys or a store that are temporarily unavailable.

use serde_json::json;

use testkit::gate::Gate;
use testkit::issuer::{Answer as KeyAnswer, KeyServer, Source};
use testkit::raw_upstream::RawUpstream;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Answer;

use super::{CLIENT, FORM, JSON, SET, Scene, events, post};

const LATER: &str = r#"{"error":"temporarily_unavailable"}"#;

fn is_later(answer: &Answer, what: &str) {
    assert_eq!((answer.status(), answer.text().as_str()), (503, LATER), "{what}");
    assert_eq!(answer.field("retry-after"), Some("5"), "{what}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
}

#[test]
fn while_the_store_cannot_be_written_no_signal_is_acknowledged() {
    let mut redis = RedisServer::start();
    let state = format!("[state]\nstore = \"redis\"\nurl = \"{}\"\non_empty = \"trust\"\n", redis.url());
    let scene = Scene::within(Settings::plaintext().toml(&state), "");
    let subject = json!({"sub_id": {"format": "opaque", "id": "alice"}});
    let (logout, revocation) = (scene.logout_token().build(), scene.authorization().build());
    let set = scene.security_event().build();
    redis.kill();
    is_later(&scene.log_out(&logout), "a logout token");
    is_later(&scene.revoke(&revocation, &subject), "a global revocation");
    is_later(&scene.post("/signals/ssf/t", SET, &set), "a security event token");
    for source in ["ssf", "logout", "gtr"] {
        let labels = [("source", source), ("type", "none"), ("matched", "no")];
        let counted = scene.gate.metrics().sum("portcullis_signals_total", &labels);
        assert!((counted - 1.0).abs() < 0.5, "{source}: {counted}");
    }
    redis.start_again();
    // What was not acknowledged is sent again, and then it is in force.
    testkit::eventually("the logout is stored", || (scene.log_out(&logout).status() == 200).then_some(()));
    testkit::eventually("the revocation is stored", || {
        (scene.revoke(&revocation, &subject).status() == 204).then_some(())
    });
    testkit::eventually("the event is stored", || {
        (scene.post("/signals/ssf/t", SET, &set).status() == 202).then_some(())
    });
    let kinds: Vec<String> =
        scene.events().iter().map(|event| event["source"].as_str().unwrap().to_owned()).collect();
    for source in ["logout", "gtr", "ssf"] {
        assert_eq!(kinds.iter().filter(|known| *known == source).count(), 1, "{source} in {kinds:?}");
    }
}

#[test]
fn while_the_keys_of_a_sender_are_not_at_hand_it_is_asked_to_come_again() {
    let (upstream, issuer, organisation) =
        (RawUpstream::start(), Issuer::new(), Issuer::named(super::ORGANISATION));
    let (issuers, organisations) = (KeyServer::start(issuer.jwks()), KeyServer::start(organisation.jwks()));
    let down = || KeyAnswer::Raw(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec());
    issuers.set(down());
    organisations.set(down());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_from(&issuer, &Source::Url(issuers.jwks_url()), "refresh_interval = \"100ms\"")
        .route("/{*rest}", "")
        .admin();
    let gate = Gate::launch(&settings.toml(&format!(
        "[signals]\npublic_url = \"{}\"\n[[logout]]\nname = \"op\"\nissuer = \"{}\"\naudiences = [\"{CLIENT}\"]\n\
         [[global_token_revocation]]\nname = \"okta\"\nissuer = \"{}\"\njwks_url = \"{}\"\n\
         refresh_interval = \"100ms\"\nsubject_issuer = \"{}\"\n",
        super::PUBLIC_URL,
        issuer.name,
        super::ORGANISATION,
        organisations.jwks_url(),
        issuer.name,
    )));
    let logout = super::bare(&issuer).head("typ", "logout+jwt").claim("aud", CLIENT).claim("sid", "s1");
    let logout =
        logout.claim("exp", testkit::now() + 120).claim("events", json!({super::LOGOUT: {}})).build();
    let revocation = super::bare(&organisation).head("typ", "global-token-revocation+jwt");
    let url = format!("{}/signals/global-token-revocation/okta", super::PUBLIC_URL);
    let revocation = revocation.claim("aud", url).claim("exp", testkit::now() + 120).build();
    let log_out =
        || post(gate.public, "/signals/logout/op", FORM, format!("logout_token={logout}").as_bytes());
    let revoke = || {
        let fields = format!("{JSON}Authorization: Bearer {revocation}\r\n");
        let body = r#"{"sub_id":{"format":"opaque","id":"alice"}}"#;
        post(gate.public, "/signals/global-token-revocation/okta", &fields, body.as_bytes())
    };
    is_later(&log_out(), "a logout token");
    is_later(&revoke(), "a global revocation");
    issuers.set_keys(issuer.jwks());
    organisations.set_keys(organisation.jwks());
    testkit::eventually("the logout is taken in", || (log_out().status() == 200).then_some(()));
    testkit::eventually("the revocation is taken in", || (revoke().status() == 204).then_some(()));
    assert_eq!(events(&gate).len(), 2);
}
