//! A real OpenID provider (`oidc-provider` from npm) and a browser: logging out at the provider ends the session here.

use serde_json::json;

use testkit::gate::{Gate, field, message};
use testkit::issuer::Source;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::OpenIdProvider;

/// An issuer as the provider's metadata describes it.
struct Discovered;

impl Discovered {
    fn settings(provider: &OpenIdProvider, upstream: &RawUpstream) -> Settings {
        let issuer = Issuer::named(&provider.issuer);
        Settings::plaintext()
            .upstream("api", &upstream.url(), "")
            .issuer_from(&issuer, &Source::Discovery, "refresh_cooldown = \"1ms\"")
            .route("/{*rest}", "")
            .admin()
            .toml(&format!(
                "[signals]\n[[logout]]\nname = \"op\"\nissuer = \"{}\"\naudiences = [\"web\"]\n",
                provider.issuer
            ))
    }
}

#[test]
fn logging_out_at_a_real_provider_ends_the_session_at_the_gate() {
    for alg in ["ES256", "RS256", "EdDSA"] {
        let mut provider = OpenIdProvider::start(alg);
        let upstream = RawUpstream::start();
        let gate = Gate::start(&Discovered::settings(&provider, &upstream));
        provider.register_logout(&format!("http://{}/signals/logout/op", gate.public));
        let token = provider.log_in();
        assert_eq!(gate.get("/").token(&token).send().status(), 200, "{alg}");
        assert_eq!(provider.log_out(), "told", "{alg}");
        let (denied, decision) = gate.decision(|| gate.get("/").token(&token).send());
        assert_eq!((denied.status(), decision.as_str()), (401, "deny/session_revoked"), "{alg}");
        assert_eq!(denied.json()["error"], json!("invalid_token"));

        let again = provider.log_in();
        assert_eq!(gate.get("/").token(&again).send().status(), 200, "another session");
        assert_eq!(gate.get("/").token(&token).send().status(), 401);
        let line = gate.log().wait_for("the line of the signal", |record| message(record) == Some("signal"));
        assert_eq!((field(&line, "source"), field(&line, "sender")), (Some("logout"), Some("op")), "{line}");
    }
}

#[test]
fn a_key_that_the_gate_has_not_seen_is_fetched_for_a_logout_token() {
    let mut provider = OpenIdProvider::start("ES256");
    let upstream = RawUpstream::start();
    let gate = Gate::start(&Discovered::settings(&provider, &upstream));
    let url = format!("http://{}/signals/logout/op", gate.public);
    provider.register_logout(&url);
    let token = provider.log_in();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    provider.rotate(true);
    provider.register_logout(&url);
    assert_eq!(provider.log_out(), "told");
    assert_eq!(gate.get("/").token(&token).send().status(), 401);
}
