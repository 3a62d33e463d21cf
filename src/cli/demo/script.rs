//! What the demo says: the configuration to the gate, and to the visitor what to try.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) gate: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) telemetry: SocketAddr,
    pub(super) upstream: SocketAddr,
}

/// The files that somebody outside the folder needs to know of.
#[derive(Debug)]
pub(super) struct DemoFiles {
    pub(super) configuration: PathBuf,
    /// The root certificate, for `curl --cacert`.
    pub(super) authority: PathBuf,
    /// The `Authorization` field, for `curl -H @`: neither the screen nor the process list needs to show a token.
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

/// What differs between one demo and another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Play<'a> {
    pub(super) tenant_field: Option<&'a str>,
    pub(super) token_lifetime: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) log_level: &'a str,
}

impl Play<'_> {
    /// What a visitor walks around in.
    pub(super) const VISIT: Self = Self {
        tenant_field: None,
        token_lifetime: Duration::from_secs(3600),
        idle_timeout: Duration::from_secs(1800),
        log_level: "warn,portcullis::access=info",
    };
}

/// The gate's configuration. Its relative paths are relative to the file.
pub(super) fn configuration(addresses: &Addresses, admin_secret: &str, play: &Play<'_>) -> String {
    let Addresses { gate, admin, telemetry, upstream } = addresses;
    let tenant_field = play.tenant_field.unwrap_or_default();
    let (lifetime, idle) = (play.token_lifetime.as_secs(), play.idle_timeout.as_secs());
    let route =
        |path: &str, more: &str| format!("[[routes]]\npath = \"{path}\"\nupstream = \"sample\"\n{more}\n\n");
    let routes = [
        route("/deals/{*rest}", "scopes = [\"read:deals\"]"),
        route("/activity/{*rest}", "scopes = [\"read:activity\"]"),
        route("/users/{*rest}", "scopes = [\"read:users\"]"),
        route("/cases/{*rest}", "methods = [\"GET\"]\nroles = [\"case-reader\"]"),
        route("/cases/{*rest}", "methods = [\"POST\"]\nroles = [\"case-writer\"]"),
    ]
    .concat();
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
url = "http://{upstream}"

[[issuers]]
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

{routes}[sessions]
idle_timeout = "{idle}s"

[state]
store = "embedded"
path = "portcullis.db"

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
        log_level = play.log_level,
    )
}

/// What the visitor reads once everything is up.
pub(super) fn text(addresses: &Addresses, files: &DemoFiles, admin_secret: &str, password: &str) -> String {
    let Addresses { gate, admin, telemetry, upstream } = addresses;
    let root = shell(&files.authority, "");
    let trust = format!("curl -i --cacert {root}");
    let (token, client, into) =
        (shell(&files.token, "@"), shell(&files.client, "@"), shell(&files.token, ""));
    let configuration = files.configuration.display();
    format!(
        "\
Portcullis demo: everything is on this machine, and gone after Ctrl-C.

  gate           https://{gate}
  upstream       http://{upstream}
  admin          http://{admin}
  telemetry      http://{telemetry}
  configuration  {configuration}

The user ada holds the roles case-reader and case-writer. Her application \"Invoice robot\" has a credential with the
role case-reader and the scope read:deals, and a token already.

The console, in a browser: as ada, or with the admin token below
  http://{admin}/console/   user: ada   password: {password}

200: the token carries the scope that the route asks for
  {trust} -H {token} https://{gate}/deals/7

401: no token
  {trust} https://{gate}/deals/7

403: the token lacks the scope of this route
  {trust} -H {token} https://{gate}/users

A token for the application, as it would ask for one itself
  curl --cacert {root} -d {client} https://{gate}/oauth/token

The same, kept for the lines above
  TOKEN=$(curl -s --cacert {root} -d {client} https://{gate}/oauth/token | sed 's/.*access_token\":\"//; s/\".*//')
  echo \"Authorization: Bearer $TOKEN\" > {into}

What operators do: take ada's role away, and the first line answers 401 until there is another token
  export PORTCULLIS_ADMIN_URL=http://{admin} PORTCULLIS_ADMIN_TOKEN={admin_secret}
  portcullis user roles ada --role case-writer
  portcullis credential list

What the gate has counted
  curl http://{telemetry}/metrics

"
    )
}

/// `prefix` and the path as one word of a shell.
fn shell(path: &Path, prefix: &str) -> String {
    let word = format!("{prefix}{}", path.display());
    let plain = |c: char| c.is_ascii_alphanumeric() || "@/._-".contains(c);
    if word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (path, word) in [
            ("/tmp/a-1/ca.pem", "@/tmp/a-1/ca.pem"),
            ("/a b", "'@/a b'"),
            ("/it's", r"'@/it'\''s'"),
            ("/$x", "'@/$x'"),
        ] {
            assert_eq!(shell(Path::new(path), "@"), word);
        }
    }
}
