//! A gate's configuration, put together by a test and written as TOML into a folder of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::issuer::Source;
use crate::pki::Authority;
use crate::tokens::Issuer;

/// The bearer secret of the admin listener in every test.
pub const ADMIN_TOKEN: &str = "admin-secret-of-the-tests-0123456789";

/// Configuration by section, so that lines can be added to a table after others were begun.
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
    /// One worker, clear text, every listener on a port of its own choice.
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

    /// Whether the public listener speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.authority.is_some()
    }

    /// Lines of `[server]`; a key set before is replaced.
    pub fn server(mut self, lines: &str) -> Self {
        overlay(&mut self.server, lines);
        self
    }

    /// Lines of `[server.tls]`.
    pub fn server_tls(mut self, lines: &str) -> Self {
        overlay(&mut self.tls, lines);
        self
    }

    /// Lines of `[server.limits]`.
    pub fn limits(mut self, lines: &str) -> Self {
        overlay(&mut self.limits, lines);
        self
    }

    /// Lines of `[telemetry]`.
    pub fn telemetry(mut self, lines: &str) -> Self {
        overlay(&mut self.telemetry, lines);
        self
    }

    /// What most tests need: the upstream `api`, this issuer, and a route for everything.
    pub fn guarding(self, url: &str, issuer: &Issuer) -> Self {
        self.upstream("api", url, "").issuer(issuer).route("/{*rest}", "")
    }

    /// An upstream, with further lines of its table.
    pub fn upstream(self, name: &str, url: &str, lines: &str) -> Self {
        self.toml(&format!("[[upstreams]]\nname = \"{name}\"\nurl = \"{url}\"\n{lines}\n"))
    }

    /// An issuer whose keys lie in a file beside the configuration.
    pub fn issuer(self, issuer: &Issuer) -> Self {
        self.issuer_with(issuer, "")
    }

    /// The same with further lines of its table; a sub-table may end them.
    pub fn issuer_with(self, issuer: &Issuer, lines: &str) -> Self {
        let file = format!("jwks-{}.json", issuer.slug());
        self.file(&file, issuer.jwks().to_string());
        self.issuer_from(issuer, &Source::File(file), lines)
    }

    /// An issuer whose keys come from `source`.
    pub fn issuer_from(self, issuer: &Issuer, source: &Source, lines: &str) -> Self {
        let mut table = String::from("[[issuers]]\n");
        writeln!(table, "issuer = {:?}", issuer.name).unwrap();
        writeln!(table, "audiences = [{:?}]", issuer.audience).unwrap();
        writeln!(table, "{}", source.toml()).unwrap();
        overlay(&mut table, lines);
        self.toml(&table)
    }

    /// A route to the upstream `api`, with further lines of its table; `upstream = …` among them overrides.
    pub fn route(self, path: &str, lines: &str) -> Self {
        let mut table = format!("[[routes]]\npath = \"{path}\"\nupstream = \"api\"\n");
        overlay(&mut table, lines);
        self.toml(&table)
    }

    /// Any further text.
    pub fn toml(mut self, text: &str) -> Self {
        self.rest.push_str(text);
        self.rest.push('\n');
        self
    }

    /// The admin listener with one token that may do everything.
    pub fn admin(self) -> Self {
        self.toml(&format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[[admin.tokens]]\nname = \"ops\"\nsecret = \"{ADMIN_TOKEN}\"\n\
             permissions = [\"events\", \"sessions\", \"authority\", \"config\"]\n"
        ))
    }

    /// Writes a file beside the configuration, in one step as a careful operator would, and says where it is.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        let fresh = self.folder.path().join(format!(".{name}.new"));
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    /// Writes the configuration and says where it is.
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
            // Tests make tokens that are older than their gate.
            text.push_str("[state]\nstore = \"memory\"\non_empty = \"trust\"\n");
        }
        if !self.rest.contains("[admin]") {
            text.push_str("[admin]\nlisten = \"127.0.0.1:0\"\n");
        }
        text
    }
}

/// Adds `lines` to a table, dropping the lines they set anew.
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
