//! Global Token Revocation: whom each subject format names, and which responses say that it names nobody.

use serde_json::{Value, json};

use testkit::gate::Gate;
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;

use super::Scene;

/// Holds docs/configuration.md, Settings: global_token_revocation[]
#[test]
fn a_subject_is_revoked_by_every_form_of_its_name() {
    let scene = Scene::start();
    let issuer = scene.issuer.name.clone();
    for (place, (member, subject)) in [
        ("sub_id", json!({"format": "iss_sub", "iss": issuer, "sub": "user0"})),
        ("sub_id", json!({"format": "opaque", "id": "user1"})),
        ("sub_id", json!({"format": "email", "email": "user2"})),
        ("sub_id", json!({"format": "account", "uri": "acct:user3"})),
        ("sub_id", json!({"format": "aliases", "identifiers": [{"format": "phone_number", "phone_number": "+1"}, {"format": "opaque", "id": "user4"}]})),
        // The name of the member in earlier drafts, which Auth0 sends.
        ("subject", json!({"format": "iss_sub", "iss": issuer, "sub": "user5"})),
    ]
    .into_iter()
    .enumerate()
    {
        let of = |name: &str| scene.issuer.token().claim("sub", name).build();
        let (named, other) = (of(&format!("user{place}")), of("somebody-else"));
        assert!(scene.passes(&named) && scene.passes(&other), "{subject}");
        let (authorization, body) = (scene.authorization().build(), json!({ member: subject }));
        let before = scene.events().len();
        let mut after = None;
        for _ in 0..2 {
            let answer = scene.revoke(&authorization, &body);
            assert_eq!((answer.status(), answer.text().as_str()), (204, ""), "{subject}");
            assert!(!scene.passes(&named) && scene.passes(&other), "{subject}");
            let count = scene.events().len();
            assert!(count > before && after.is_none_or(|after| after == count), "the same request changes nothing");
            after = Some(count);
        }
        let event = scene.events().pop().unwrap();
        assert_eq!((&event["type"], &event["source"]), (&json!("subject-revoked"), &json!("gtr")), "{subject}");
    }
}

#[test]
fn a_subject_that_was_never_seen_is_recorded() {
    let scene = Scene::start();
    let body = json!({"sub_id": {"format": "opaque", "id": "never-seen"}});
    assert_eq!(scene.revoke(&scene.authorization().build(), &body).status(), 204);
    let first = scene.issuer.token().claim("sub", "never-seen").claim("iat", now() - 60).build();
    assert!(!scene.passes(&first));
}

#[test]
fn requests_that_are_authorized_and_name_no_user_change_nothing() {
    let scene = Scene::start();
    let issuer = scene.issuer.name.clone();
    for (status, error, body) in [
        (400, "invalid_request", json!({})),
        (400, "invalid_request", json!({"sub_id": "alice"})),
        (400, "invalid_request", json!({"sub_id": {}})),
        (400, "invalid_request", json!({"sub_id": {"format": "opaque"}})),
        (400, "invalid_request", json!({"sub_id": {"format": "opaque", "id": 7}})),
        (400, "invalid_request", json!({"sub_id": {"format": "opaque", "id": ""}})),
        (400, "invalid_request", json!({"sub_id": {"format": "account", "uri": "alice"}})),
        (
            400,
            "invalid_request",
            json!({"sub_id": {"format": "opaque", "id": "a"}, "subject": {"format": "opaque", "id": "b"}}),
        ),
        (
            403,
            "access_denied",
            json!({"sub_id": {"format": "iss_sub", "iss": "https://other.example.com/", "sub": "alice"}}),
        ),
        (404, "unknown_subject", json!({"sub_id": {"format": "phone_number", "phone_number": "+1"}})),
        (404, "unknown_subject", json!({"sub_id": {"format": "did", "url": "did:example:1"}})),
        (422, "unprocessable_subject", json!({"sub_id": {"format": "jwt_id", "iss": issuer, "jti": "a"}})),
        (
            422,
            "unprocessable_subject",
            json!({"sub_id": {"format": "complex", "session": {"format": "opaque", "id": "s1"}}}),
        ),
    ] {
        let answer = scene.revoke(&scene.authorization().build(), &body);
        assert_eq!((answer.status(), &answer.json()["error"]), (status, &json!(error)), "{body}");
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
    }
    for text in [
        "",
        "[]",
        "null",
        "{",
        r#"{"sub_id":{"format":"opaque","id":"a"},"sub_id":{"format":"opaque","id":"b"}}"#,
    ] {
        let token = scene.authorization().build();
        let fields = format!("{}Authorization: Bearer {token}\r\n", super::JSON);
        let answer = scene.post("/signals/global-token-revocation/okta", &fields, text);
        assert_eq!((answer.status(), &answer.json()["error"]), (400, &json!("invalid_request")), "{text}");
    }
    assert_eq!(scene.events(), Vec::<Value>::new());
}

#[test]
fn the_authority_says_in_its_metadata_where_its_tokens_are_revoked() {
    let (upstream, organisation) = (RawUpstream::start(), Issuer::named(super::ORGANISATION));
    let settings = Settings::plaintext().upstream("api", &upstream.url(), "").route("/{*rest}", "").admin();
    settings.file("organisation.json", organisation.jwks().to_string());
    let issuer = "https://gate.example.com";
    let settings = settings.toml(&format!(
        "[authority]\nissuer = \"{issuer}\"\naudience = \"{issuer}\"\npath = \"authority.db\"\n\
         [[issuers]]\nissuer = \"{issuer}\"\naudiences = [\"{issuer}\"]\nauthority = true\n"
    ));
    let with = settings.clone().toml(&format!(
        "[signals]\npublic_url = \"{}\"\n[[global_token_revocation]]\nname = \"okta\"\nissuer = \"{}\"\n\
         jwks_file = \"organisation.json\"\nsubject_issuer = \"{issuer}\"\n",
        super::PUBLIC_URL,
        super::ORGANISATION
    ));
    let url = format!("{}/signals/global-token-revocation/okta", super::PUBLIC_URL);
    for (settings, published) in [(settings, Value::Null), (with, json!(url))] {
        let gate = Gate::start(&settings);
        let metadata = gate.get("/.well-known/oauth-authorization-server").send().json();
        assert_eq!(metadata["issuer"], json!(issuer));
        assert_eq!(metadata["global_token_revocation_endpoint"], published);
    }
}
