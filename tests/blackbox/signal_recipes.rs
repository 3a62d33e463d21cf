//! The recipes of docs/signals.md: each is a configuration that the gate accepts, together with the issuer that it names.

use testkit::documents::block;
use testkit::gate::{binary, path_text};
use testkit::settings::Settings;
use testkit::tokens::Issuer;

/// Runs docs/signals.md: how senders reach it
/// Runs docs/signals.md: name = "keycloak"
/// Runs docs/signals.md: name = "okta"
/// Runs docs/signals.md: name = "entra"
/// Runs docs/signals.md: name = "auth0"
/// Runs docs/signals.md: name = "authentik"
/// Runs docs/signals.md: name = "acme"
#[test]
fn every_recipe_is_a_configuration_that_the_gate_takes() {
    for (named, issuer, claims) in [
        ("how senders reach it", "https://idp.example.com/", ""),
        ("name = \"keycloak\"", "https://sso.example.com/realms/main", ""),
        ("name = \"okta\"", "https://org.okta.com/oauth2/default", "aliases = [\"uid\"]\nemail = \"sub\""),
        (
            "name = \"entra\"",
            "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/v2.0",
            "subject = \"oid\"\ntoken_id = \"uti\"",
        ),
        ("name = \"auth0\"", "https://tenant.eu.auth0.com/", "session = \"https://example.com/sid\""),
        ("name = \"authentik\"", "https://auth.example.com/application/o/web/", ""),
        ("name = \"acme\"", "https://idp.example.com/realms/acme", ""),
    ] {
        let recipe = block("docs/signals.md", named);
        let claims = format!("[issuers.claims]\n{claims}");
        let settings = Settings::plaintext()
            .upstream("api", "http://127.0.0.1:3000", "")
            .issuer_with(&Issuer::named(issuer), &claims)
            .route("/{*rest}", "")
            .toml(&recipe);
        let mut check = std::process::Command::new(binary());
        check.args(["check", "--config", path_text(&settings.write())]);
        for name in [
            "OKTA_SCIM_TOKEN",
            "ENTRA_SCIM_TOKEN",
            "AUTHENTIK_SCIM_TOKEN",
            "STREAM_AUTHORIZATION",
            "STREAM_CLIENT_SECRET",
        ] {
            check.env(name, "a-secret-of-more-than-16-bytes");
        }
        let output = check.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{named}: {text}\n{}", settings.to_toml());
    }
}
