//! What the demo says: the configuration to the gate, and to the visitor what to try.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::issuer;

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
pub(super) struct Files {
    pub(super) configuration: PathBuf,
    /// The root certificate, for `curl --cacert`.
    authority: PathBuf,
    /// The `Authorization` field, for `curl -H @`: neither the screen nor the process list needs to show a token.
    token: PathBuf,
}

impl Files {
    pub(super) fn within(folder: &Path) -> Self {
        let [configuration, authority, token] =
            ["portcullis.toml", "ca.pem", "token"].map(|name| folder.join(name));
        Self { configuration, authority, token }
    }
}

/// The gate's configuration. Its relative paths are relative to the file.
pub(super) fn configuration(addresses: &Addresses, admin_secret: &str) -> String {
    let Addresses { gate, admin, telemetry, upstream } = addresses;
    let (issuer, audience, scope) = (issuer::NAME, issuer::AUDIENCE, issuer::SCOPE);
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
issuer = "{issuer}"
audiences = ["{audience}"]
algorithms = ["ES256"]
jwks_file = "jwks.json"

[[routes]]
path = "/deals/{{*rest}}"
upstream = "sample"
scopes = ["{scope}"]

[[routes]]
path = "/users/{{*rest}}"
upstream = "sample"
scopes = ["read:users"]

[state]
# The token is made before the gate starts, and a store remembers nothing from before it was created.
store = "memory"
on_empty = "trust"

[telemetry]
listen = "{telemetry}"
log_format = "pretty"
log_level = "warn,portcullis::access=info"

[admin]
listen = "{admin}"

[[admin.tokens]]
name = "demo"
secret = "{admin_secret}"
permissions = ["events", "sessions", "authority", "config"]
"#
    )
}

/// What the visitor reads once everything is up.
pub(super) fn text(addresses: &Addresses, files: &Files) -> String {
    let Addresses { gate, admin, telemetry, upstream } = addresses;
    let trust = format!("curl -i --cacert {}", shell(&files.authority, ""));
    let token = shell(&files.token, "@");
    let configuration = files.configuration.display();
    format!(
        "\
Portcullis demo: everything is on this machine, and gone after Ctrl-C.

  gate           https://{gate}
  upstream       http://{upstream}
  admin          http://{admin}
  telemetry      http://{telemetry}
  configuration  {configuration}

200: the token carries the scope that the route asks for
  {trust} -H {token} https://{gate}/deals/7

401: no token
  {trust} https://{gate}/deals/7

403: the token lacks the scope of this route
  {trust} -H {token} https://{gate}/users

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
    fn words_of_a_shell() {
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
