//! Users and sessions that tokens name in other claims than `sub` and `sid`; other protocols, and certificates.

use serde_json::{Value, json};

use testkit::gate::Gate;
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::wire::Wire;

use super::{FORM, LOGOUT, Scene, senders};

/// Starts a gate whose issuers name users and sessions in these claims.
fn scene(claims: &str) -> Scene {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let (transmitter, organisation) = (Issuer::new(), Issuer::named(super::ORGANISATION));
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&issuer, &format!("[issuers.claims]\n{claims}"))
        .route("/{*rest}", "")
        .admin();
    let gate = Gate::start(&senders(settings, &issuer, &transmitter, &organisation, ""));
    gate.wait_for_metric("the sender's keys are loaded", |scrape| {
        let labels = [("issuer", "global_token_revocation/okta")];
        (scrape.sum("portcullis_keys", &labels) > 0.5).then_some(())
    });
    Scene { upstream, issuer, transmitter, organisation, gate }
}

#[test]
fn signals_reach_tokens_by_the_claims_that_are_configured() {
    let entra = "subject = \"oid\"\nsession = \"s_id\"\naliases = [\"sub\", \"upn\"]\nemail = \"mail\"";
    let claims = json!({"oid": "o1", "s_id": "session-1", "sub": "pairwise", "upn": "ann@corp", "mail": "ann@Example.COM"});
    let logout = |name: &'static str, value: &'static str| (name, json!(value));
    for (what, signal, ends) in [
        ("the session", logout("sid", "session-1"), true),
        ("another session", logout("sid", "sid-1"), false),
        ("the subject", logout("sub", "o1"), true),
        ("an alias", logout("sub", "pairwise"), true),
        ("nobody", logout("sub", "o2"), false),
        ("the subject", ("sub_id", json!({"format": "opaque", "id": "o1"})), true),
        ("an alias", ("sub_id", json!({"format": "opaque", "id": "ann@corp"})), true),
        ("an address", ("sub_id", json!({"format": "email", "email": "ann@example.com"})), true),
        ("another's address", ("sub_id", json!({"format": "email", "email": "Ann@example.com"})), false),
        ("an account", ("sub_id", json!({"format": "account", "uri": "acct:ann@corp"})), true),
        (
            "a subject that is an alias here",
            ("sub_id", json!({"format": "iss_sub", "iss": "https://idp.example.com/", "sub": "pairwise"})),
            false,
        ),
    ] {
        let scene = scene(entra);
        let token = claims
            .as_object()
            .unwrap()
            .iter()
            .fold(scene.issuer.token(), |token, (name, value)| token.claim(name, value.clone()));
        let token = token.build();
        assert!(scene.passes(&token));
        let answer = match signal {
            ("sub_id", subject) => scene.revoke(&scene.authorization().build(), &json!({"sub_id": subject})),
            (name, value) => scene.log_out(&scene.logout_token().without("sid").claim(name, value).build()),
        };
        assert!([200, 204].contains(&answer.status()), "{what}: {}", answer.text());
        assert_eq!(!scene.passes(&token), ends, "{what}");
    }
}

#[test]
fn a_sender_may_speak_http_2_and_wait_for_a_100() {
    let scene = Scene::within(Settings::tls(), "");
    let body = |sid: &str| {
        let token = scene.logout_token().claim("sid", sid).build();
        scene.gate.settings.file("body", format!("logout_token={token}"));
        format!("@{}", scene.gate.settings.folder().join("body").display())
    };
    let status = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
    for (sid, version, more, expected) in [
        ("s1", "--http2", &[][..], "2 200"),
        ("s2", "--http1.1", &[], "1.1 200"),
        ("s3", "--http1.1", &["-H", "Expect: 100-continue", "--expect100-timeout", "60"], "1.1 200"),
    ] {
        let body = body(sid);
        let arguments = [&[version, "--data-binary", &body], &status[..], more].concat();
        assert_eq!(scene.gate.curl("/signals/logout/op", &arguments), expected, "{sid}");
    }
    let sessions: Vec<Value> = scene.events().iter().map(|event| event["session"].clone()).collect();
    assert_eq!(sessions, [json!("s1"), json!("s2"), json!("s3")]);
}

#[test]
fn where_clients_need_a_certificate_senders_need_one_too() {
    let settings = Settings::tls().server_tls("client_ca = \"ca.pem\"\nrequire_client_certificate = true");
    let scene = Scene::within(settings, "");
    let token = scene.logout_token().claim("exp", now() + 100).claim("events", json!({LOGOUT: {}})).build();
    let body = format!("logout_token={token}");
    let config = scene.gate.settings.authority().client_config(&["http/1.1"], None);
    let request = format!(
        "POST /signals/logout/op HTTP/1.1\r\nHost: localhost\r\n{FORM}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // In TLS 1.3 the handshake is over for the client before the server has refused it.
    let answer =
        Wire::tls(scene.gate.public, "localhost", config).and_then(|mut wire| wire.exchange(request));
    assert!(answer.is_err() || answer.unwrap().status() >= 400);
    assert!(scene.events().is_empty());
}
