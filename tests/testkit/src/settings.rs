//! A gate's configuration, assembled by a test and written as TOML into a folder of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::issuer::Source;
use crate::pki::Authority;
use crate::tokens::Issuer;

/// The bearer secret of the admin listener in all tests.
pub const ADMIN_TOKEN: &str = "admin-secret-of-the-tests-0123456789";

/// The configuration by table, so that lines can be added to a table after others were begun.
#[derive(Clone)]
pub struct Settings {
    folder: Arc<TempDir>,
    server: String,
    tls: String,
    limits: String,
    telemetry: String,
    rest: String,
    authority: Option<Arc<Authority>>,
}

impl Settings {
    /// One worker, plaintext, every listener on a free port.
    pub fn plaintext() -> Self {
        let mut settings = Self::bare();
        settings.server.push_str("allow_plaintext = true\n");
        settings
    }

    /// One worker behind TLS with a certificate for `localhost`, `api.test` and `127.0.0.1`.
    pub fn tls() -> Self {
        let mut settings = Self::bare();
        let authority = Authority::new();
        let server = authority.server(&["localhost", "api.test", "127.0.0.1"]);
        settings.file("ca.pem", authority.certificate_pem());
        settings.file("server.pem", &server.chain);
        settings.file("server.key", &server.key);
        settings.tls.push_str("certificate = \"server.pem\"\nprivate_key = \"server.key\"\n");
        settings.authority = Some(Arc::new(authority));
        settings
    }

    fn bare() -> Self {
        Self {
            folder: Arc::new(tempfile::Builder::new().prefix("portcullis-test-").tempdir().unwrap()),
            server: "listen = [\"127.0.0.1:0\"]\nworkers = 1\n".to_owned(),
            tls: String::new(),
            limits: String::new(),
            telemetry: "listen = \"127.0.0.1:0\"\n".to_owned(),
            rest: String::new(),
            authority: None,
        }
    }

    /// The authority that signed the gate's certificate.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("a gate behind TLS")
    }

    /// Whether the public listener uses TLS.
    pub fn has_tls(&self) -> bool {
        self.authority.is_some()
    }

    /// Adds lines to `[server]`; a key set before is replaced.
    pub fn server(mut self, lines: &str) -> Self {
        overlay(&mut self.server, lines);
        self
    }

    /// Adds lines to `[server.tls]`.
    pub fn server_tls(mut self, lines: &str) -> Self {
        overlay(&mut self.tls, lines);
        self
    }

    /// Adds lines to `[server.limits]`.
    pub fn limits(mut self, lines: &str) -> Self {
        overlay(&mut self.limits, lines);
        self
    }

    /// Adds lines to `[telemetry]`.
    pub fn telemetry(mut self, lines: &str) -> Self {
        overlay(&mut self.telemetry, lines);
        self
    }

    /// Adds what most tests need: the upstream `api`, this issuer, and a route for everything.
    pub fn guarding(self, url: &str, issuer: &Issuer) -> Self {
        self.upstream("api", url, "").issuer(issuer).route("/{*rest}", "")
    }

    /// Adds an upstream, with further lines of its table.
    pub fn upstream(self, name: &str, url: &str, lines: &str) -> Self {
        self.toml(&format!("[[upstreams]]\nname = \"{name}\"\nurl = \"{url}\"\n{lines}\n"))
    }

    /// Adds an issuer whose keys are in a file beside the configuration.
    pub fn issuer(self, issuer: &Issuer) -> Self {
        self.issuer_with(issuer, "")
    }

    /// Adds such an issuer with further lines of its table; they may end with a sub-table.
    pub fn issuer_with(self, issuer: &Issuer, lines: &str) -> Self {
        let file = format!("jwks-{}.json", issuer.slug());
        self.file(&file, issuer.jwks().to_string());
        self.issuer_from(issuer, &Source::File(file), lines)
    }

    /// Adds an issuer whose keys come from `source`.
    pub fn issuer_from(self, issuer: &Issuer, source: &Source, lines: &str) -> Self {
        let mut table = String::from("[[issuers]]\n");
        writeln!(table, "issuer = {:?}", issuer.name).unwrap();
        writeln!(table, "audiences = [{:?}]", issuer.audience).unwrap();
        writeln!(table, "{}", source.toml()).unwrap();
        overlay(&mut table, lines);
        self.toml(&table)
    }

    /// Adds a route to the upstream `api`, with further lines of its table, which may override `upstream`.
    pub fn route(self, path: &str, lines: &str) -> Self {
        let mut table = format!("[[routes]]\npath = \"{path}\"\nupstream = \"api\"\n");
        overlay(&mut table, lines);
        self.toml(&table)
    }

    /// Adds any text.
    pub fn toml(mut self, text: &str) -> Self {
        self.rest.push_str(text);
        self.rest.push('\n');
        self
    }

    /// Adds the admin listener with one token that has all permissions.
    pub fn admin(self) -> Self {
        self.toml(&format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[[admin.tokens]]\nname = \"ops\"\nsecret = \"{ADMIN_TOKEN}\"\n\
             permissions = [\"events\", \"sessions\", \"authority\", \"config\"]\n"
        ))
    }

    /// Writes a file beside the configuration atomically, as a careful operator would, and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        let fresh = self.folder.path().join(format!(".{name}.new"));
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    /// Writes the configuration and returns its path.
    pub fn write(&self) -> PathBuf {
        self.file("portcullis.toml", self.to_toml())
    }

    /// The configuration's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration's text.
    pub fn to_toml(&self) -> String {
        let mut text = format!("[server]\n{}\n", self.server);
        if !self.tls.is_empty() {
            write!(text, "[server.tls]\n{}\n", self.tls).unwrap();
        }
        if !self.limits.is_empty() {
            write!(text, "[server.limits]\n{}\n", self.limits).unwrap();
        }
        write!(text, "[telemetry]\n{}\n{}", self.telemetry, self.rest).unwrap();
        if !self.rest.contains("[state]") {
            // Tests create tokens that are older than their gate.
            text.push_str("[state]\nstore = \"memory\"\non_empty = \"trust\"\n");
        }
        if !self.rest.contains("[admin]") {
            text.push_str("[admin]\nlisten = \"127.0.0.1:0\"\n");
        }
        text
    }
}

/// Adds `lines` to a table, replacing earlier lines for the same keys.
pub fn overlay(table: &mut String, lines: &str) {
    let lines = lines.trim();
    if lines.is_empty() {
        return;
    }
    let new: Vec<&str> = lines
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(key, _)| key.trim())
        .collect();
    let kept: String = table
        .lines()
        .filter(|line| line.split_once('=').is_none_or(|(key, _)| !new.contains(&key.trim())))
        .fold(String::new(), |text, line| text + line + "\n");
    *table = format!("{kept}{lines}\n");
}
