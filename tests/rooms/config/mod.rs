//! The configuration from the outside: files on disk in, settings or problems out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bad;
mod check;
mod good;
mod reference;
mod reload;
mod schema;

use std::fs;
use std::path::PathBuf;

use portcullis::config::{self, ConfigProblem, Loaded, Problems};
use tempfile::TempDir;

/// A folder with a configuration and the files it may name.
struct Folder(TempDir);

impl Folder {
    /// `config/` and `certs/` with a certificate, its key, another key, and a key set.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for name in ["config", "certs"] {
            fs::create_dir(folder.0.path().join(name)).unwrap();
        }
        let certificates = [("server", &["localhost"][..]), ("admin", &["localhost"]), ("shop", SHOP)];
        for (name, names) in certificates {
            let made =
                rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>())
                    .unwrap();
            folder.write(&format!("certs/{name}.pem"), &made.cert.pem());
            folder.write(&format!("certs/{name}.key"), &made.signing_key.serialize_pem());
        }
        fs::create_dir(folder.0.path().join("certs/account")).unwrap();
        fs::copy(folder.path("certs/server.pem"), folder.path("certs/account/ca.crt")).unwrap();
        folder.write("certs/garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        folder.write("certs/empty", "");
        folder.write("certs/secret", "0123456789abcdef0123456789abcdef\n");
        folder.write("certs/jwks.json", JWKS);
        folder.write("certs/no-keys.json", r#"{"keys": []}"#);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.path("config/portcullis.toml")
    }

    /// Loads `text` as `config/portcullis.toml`.
    fn load(&self, text: &str) -> Result<Loaded, Problems> {
        self.write("config/portcullis.toml", text);
        let loaded = config::load(&self.config());
        // Editors must not mark what the gate takes.
        if loaded.is_ok()
            && let Some(refusal) = schema::refusal(text)
        {
            panic!("the schema refuses a good file: {refusal}\n{text}");
        }
        loaded
    }

    fn good(&self, text: &str) -> Loaded {
        self.load(text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn problems(&self, text: &str) -> Vec<ConfigProblem> {
        match self.load(text) {
            Ok(_) => panic!("nothing was found wrong with:\n{text}"),
            Err(problems) => problems.list().to_vec(),
        }
    }
}

/// The names in `certs/shop.pem`.
const SHOP: &[&str] = &["shop.example.com", "*.example.org", "Api.Example.Net"];

/// One P-256 public key.
const JWKS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// A valid configuration. Tests replace its lines by the names at their ends.
const BASE: &str = r#"
[server]                                        #server.table
listen = ["127.0.0.1:0"]                        #server.listen
allow_plaintext = true                          #server.plaintext
                                                #server
[server.limits]
                                                #limits
[[upstreams]]
name = "api"                                    #upstream.name
url = "http://127.0.0.1:3000"                   #upstream.url
                                                #upstream
[[issuers]]                                     #issuer.table
issuer = "https://idp.example.com/"             #issuer.name
audiences = ["https://api.example.com"]         #issuer.audiences
jwks_url = "https://idp.example.com/jwks"       #issuer.keys
                                                #issuer
[[routes]]                                      #route.table
path = "/deals/{*rest}"                         #route.path
upstream = "api"                                #route.upstream
                                                #route
[identity.headers]
                                                #identity
[sessions]
                                                #sessions
[streams]
                                                #streams
[state]
                                                #state
[telemetry]
listen = "127.0.0.1:0"                          #telemetry.listen
                                                #telemetry
[admin]
listen = "127.0.0.1:0"                          #admin.listen
                                                #admin
"#;

/// `BASE` with lines replaced.
fn base_with(replacements: &[(&str, &str)]) -> String {
    let mut lines: Vec<_> = BASE.lines().collect();
    for (slot, text) in replacements {
        let slot = format!(" #{slot}");
        let line = lines.iter_mut().find(|line| line.ends_with(&slot));
        *line.unwrap_or_else(|| panic!("the base has no line{slot}")) = text;
    }
    lines.join("\n")
}

/// The number of the one line that ends with `# here`.
fn line_of_here(text: &str) -> usize {
    let mut lines = text.lines().enumerate().filter(|(_, line)| line.ends_with("# here"));
    let (index, _) = lines.next().unwrap_or_else(|| panic!("no line is marked `# here`:\n{text}"));
    assert!(lines.next().is_none(), "several lines are marked `# here`");
    index + 1
}
