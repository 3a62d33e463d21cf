//! The endpoints at which identity providers send signals without an admin token: valid signals here, and
//! invalid ones in the files below.

mod failures;
mod hostile;
mod limits;
mod listeners;
mod logout;
mod names;
mod provider;
mod revocation;

use std::net::SocketAddr;

use serde_json::{Value, json};

use testkit::gate::Gate;
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Token, unique};
use testkit::wire::{Answer, Wire};

/// The audience of security event tokens.
const AUDIENCE: &str = "https://gate.example.com";
/// The configured URL at which senders reach the gate.
const PUBLIC_URL: &str = "https://gate.example.com/edge";
/// The provider's client that users log in to.
const CLIENT: &str = "my-client";
/// The issuer of global token revocations.
const ORGANISATION: &str = "https://org.okta.example";

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A gate with one sender of each kind.
struct Scene {
    upstream: RawUpstream,
    issuer: Issuer,
    /// Signs security event tokens, with another key under the same issuer name.
    transmitter: Issuer,
    /// Signs tokens that authorize a global token revocation.
    organisation: Issuer,
    gate: Gate,
}

impl Scene {
    fn start() -> Self {
        Self::with("")
    }

    /// Starts it with further lines of `[signals]`.
    fn with(lines: &str) -> Self {
        Self::within(Settings::plaintext(), lines)
    }

    fn within(settings: Settings, lines: &str) -> Self {
        let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
        let (transmitter, organisation) = (Issuer::new(), Issuer::named(ORGANISATION));
        let settings = settings.guarding(&upstream.url(), &issuer).admin();
        let settings = senders(settings, &issuer, &transmitter, &organisation, lines);
        let gate = Gate::start(&settings);
        // Requests of an API do not wait for them, and signals get 503 until they are there.
        for sender in ["event_transmitters/t", "event_transmitters/secret", "global_token_revocation/okta"] {
            gate.wait_for_metric("the sender's keys are loaded", |scrape| {
                (scrape.sum("portcullis_keys", &[("issuer", sender)]) > 0.5).then_some(())
            });
        }
        Self { upstream, issuer, transmitter, organisation, gate }
    }

    /// Posts to an endpoint on the public listener.
    fn post(&self, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Answer {
        post(self.gate.public, path, fields, body.as_ref())
    }

    /// Posts a logout token.
    fn log_out(&self, token: &str) -> Answer {
        self.post("/signals/logout/op", FORM, format!("logout_token={token}"))
    }

    /// Requests a global token revocation.
    fn revoke(&self, token: &str, body: &Value) -> Answer {
        let fields = format!("{JSON}Authorization: Bearer {token}\r\n");
        self.post("/signals/global-token-revocation/okta", &fields, body.to_string())
    }

    /// A valid token that authorizes a global token revocation.
    fn authorization(&self) -> Token<'_> {
        let token = bare(&self.organisation).head("typ", "global-token-revocation+jwt");
        let url = format!("{PUBLIC_URL}/signals/global-token-revocation/okta");
        token.claim("aud", url).claim("sub", "client").claim("exp", now() + 300)
    }

    /// A valid logout token for the session `s1`.
    fn logout_token(&self) -> Token<'_> {
        let token = bare(&self.issuer).head("typ", "logout+jwt").claim("aud", CLIENT);
        token.claim("exp", now() + 120).claim("sid", "s1").claim("events", json!({LOGOUT: {}}))
    }

    /// A valid security event token that ends the sessions of `alice`.
    fn security_event(&self) -> Token<'_> {
        security_event(&self.transmitter)
    }

    /// Whether a token is currently accepted.
    fn passes(&self, token: &str) -> bool {
        let status = self.gate.get("/").token(token).send().status();
        assert!(status == 200 || status == 401, "{status}");
        status == 200
    }

    fn events(&self) -> Vec<Value> {
        events(&self.gate)
    }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const SET: &str = "Content-Type: application/secevent+jwt\r\n";

/// One sender of each kind, and `[signals]` with these lines.
fn senders(
    settings: Settings,
    issuer: &Issuer,
    transmitter: &Issuer,
    organisation: &Issuer,
    lines: &str,
) -> Settings {
    settings.file("transmitter.json", transmitter.jwks().to_string());
    settings.file("organisation.json", organisation.jwks().to_string());
    let name = &issuer.name;
    settings.toml(&format!(
        "[signals]\npublic_url = \"{PUBLIC_URL}/\"\n{lines}\n\
         [[event_transmitters]]\nname = \"t\"\nissuer = \"{name}\"\naudience = \"{AUDIENCE}\"\n\
         jwks_file = \"transmitter.json\"\nsubject_issuer = \"{name}\"\n\
         [[event_transmitters]]\nname = \"secret\"\nissuer = \"{name}\"\naudience = \"{AUDIENCE}\"\n\
         jwks_file = \"transmitter.json\"\nsubject_issuer = \"{name}\"\nauthorization = \"Bearer of-the-stream\"\n\
         [[logout]]\nname = \"op\"\nissuer = \"{name}\"\naudiences = [\"other\", \"{CLIENT}\"]\n\
         [[global_token_revocation]]\nname = \"okta\"\nissuer = \"{ORGANISATION}\"\n\
         jwks_file = \"organisation.json\"\nsubject_issuer = \"{name}\"\n"
    ))
}

/// A token with only the claims that all kinds of tokens share, and without a type.
fn bare(issuer: &Issuer) -> Token<'_> {
    let token = issuer.token().headless("typ").claim("jti", unique());
    ["sub", "exp", "client_id", "scope"].into_iter().fold(token, |token, name| token.without(name))
}

fn security_event(transmitter: &Issuer) -> Token<'_> {
    let subject = json!({"format": "iss_sub", "iss": transmitter.name, "sub": "alice"});
    let token = bare(transmitter).head("typ", "secevent+jwt").claim("aud", AUDIENCE);
    token.claim("sub_id", subject).claim("events", json!({SESSION_REVOKED: {}}))
}

fn post(to: SocketAddr, path: &str, fields: &str, body: &[u8]) -> Answer {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: gate\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    Wire::plain(to).exchange([head.as_bytes(), body].concat()).unwrap()
}

fn events(gate: &Gate) -> Vec<Value> {
    gate.operate("GET", "/v1/events", None).json()["items"].as_array().unwrap().clone()
}
