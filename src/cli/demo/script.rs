//! The configuration of the demo's gate, and the places of its files and addresses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

/// The addresses of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) gate: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) telemetry: SocketAddr,
    pub(super) upstream: SocketAddr,
}

/// The files that are used from outside the folder.
#[derive(Debug)]
pub(super) struct DemoFiles {
    pub(super) configuration: PathBuf,
    /// The root certificate, for `curl --cacert`.
    pub(super) authority: PathBuf,
    /// The `Authorization` field, for `curl -H @`, so that the token appears neither on the screen
    /// nor in the process list.
    pub(super) token: PathBuf,
    /// The token request, for `curl -d @`.
    pub(super) client: PathBuf,
}

impl DemoFiles {
    pub(super) fn within(folder: &Path) -> Self {
        let [configuration, authority, token, client] =
            ["portcullis.toml", "ca.pem", "token", "client"].map(|name| folder.join(name));
        Self { configuration, authority, token, client }
    }
}

/// The visitor's own identity provider, and optionally an API.
#[derive(Debug, Clone)]
pub(super) struct DemoProvider {
    /// Compared exactly with `iss`; the base of the discovery URL.
    pub(super) issuer: String,
    /// The audience that `aud` must contain.
    pub(super) audience: String,
    /// PEM file with the CA certificates for the provider.
    pub(super) ca: Option<PathBuf>,
    /// The upstream, in place of the sample API.
    pub(super) upstream: Option<String>,
}

/// The source of tokens.
#[derive(Debug, Clone, Copy)]
pub(super) enum TokenSource<'a> {
    /// The gate's own authority.
    Authority { tenant_field: Option<&'a str>, token_lifetime: Duration },
    /// The visitor's identity provider.
    Provider(&'a DemoProvider),
}

/// The differences between one demo and another.
#[derive(Debug, Clone, Copy)]
pub(super) struct DemoStory<'a> {
    pub(super) tokens: TokenSource<'a>,
    pub(super) idle_timeout: Duration,
    pub(super) log_level: &'a str,
}

/// Logs only errors, so that no log line appears between printed lines.
const QUIET: &str = "error";
/// Logs which requests passed and which were rejected, once everything is printed.
const TALKATIVE: &str = "warn,portcullis::access=info";

impl<'a> DemoStory<'a> {
    /// The settings for a visitor who tries things out.
    pub(super) const VISIT: Self = Self {
        tokens: TokenSource::Authority { tenant_field: None, token_lifetime: Duration::from_secs(3600) },
        idle_timeout: Duration::from_secs(1800),
        log_level: QUIET,
    };

    /// The same settings, with the tokens of the visitor's own identity provider.
    pub(super) fn with_provider(provider: &'a DemoProvider) -> Self {
        Self { tokens: TokenSource::Provider(provider), ..Self::VISIT }
    }

    /// The same settings, but requests are logged.
    pub(super) fn with_requests_logged(self) -> Self {
        Self { log_level: TALKATIVE, ..self }
    }
}

/// The gate's configuration. Its relative paths are relative to the file.
pub(super) fn configuration(addresses: &Addresses, admin_secret: &str, play: &DemoStory<'_>) -> String {
    let Addresses { gate, admin, telemetry, upstream } = addresses;
    let (tokens, url) = match play.tokens {
        TokenSource::Authority { tenant_field, token_lifetime } => {
            (authority(addresses, tenant_field.unwrap_or_default(), token_lifetime), None)
        }
        TokenSource::Provider(provider) => (issuer(provider), provider.upstream.as_deref()),
    };
    let url = quoted(url.unwrap_or(&format!("http://{upstream}")));
    format!(
        r#"[server]
listen = ["{gate}"]
workers = 1
drain_timeout = "2s"

[server.tls]
certificate = "server.pem"
private_key = "server.key"

[[upstreams]]
name = "sample"
url = {url}

{tokens}[sessions]
idle_timeout = "{idle}s"

[state]
store = "embedded"
path = "portcullis.db"
on_empty = "trust" # tokens that the visitor has already pass: nothing was revoked before

[telemetry]
listen = "{telemetry}"
log_format = "pretty"
log_level = "{log_level}"

[admin]
listen = "{admin}"

[[admin.tokens]]
name = "demo"
secret = "{admin_secret}"
permissions = ["events", "sessions", "authority", "config"]
"#,
        idle = play.idle_timeout.as_secs(),
        log_level = play.log_level,
    )
}

/// The gate's own authority, and routes for each of its scopes and roles.
fn authority(addresses: &Addresses, tenant_field: &str, token_lifetime: Duration) -> String {
    let (gate, lifetime) = (addresses.gate, token_lifetime.as_secs());
    let routes = [
        route("/deals/{*rest}", "scopes = [\"read:deals\"]"),
        route("/activity/{*rest}", "scopes = [\"read:activity\"]"),
        route("/users/{*rest}", "scopes = [\"read:users\"]"),
        route("/cases/{*rest}", "methods = [\"GET\"]\nroles = [\"case-reader\"]"),
        route("/cases/{*rest}", "methods = [\"POST\"]\nroles = [\"case-writer\"]"),
    ]
    .concat();
    format!(
        r#"[[issuers]]
issuer = "https://{gate}"
audiences = ["https://{gate}"]
authority = true
leeway = "0s" # the gate's own tokens, by its own clock

[authority]
issuer = "https://{gate}"
audience = "https://{gate}"
token_lifetime = "{lifetime}s"
tenant_parameter = "{tenant_field}"
scopes = ["read:deals", "read:activity", "read:users"]
path = "portcullis.db"

{routes}"#
    )
}

/// The visitor's identity provider, and one route for everything.
fn issuer(provider: &DemoProvider) -> String {
    let DemoProvider { issuer, audience, ca, upstream: _ } = provider;
    let ca = ca.as_ref().map(|ca| format!("ca = {}\n", quoted(&ca.to_string_lossy()))).unwrap_or_default();
    let (issuer, audience, route) = (quoted(issuer), quoted(audience), route("/{*rest}", ""));
    format!("[[issuers]]\nissuer = {issuer}\naudiences = [{audience}]\ndiscovery = true\n{ca}\n{route}")
}

fn route(path: &str, more: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nupstream = \"sample\"\n{more}\n\n")
}

/// Quotes a text as a TOML basic string, which supports the escapes of JSON.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}
