//! The blocks of README and docs as a reader pastes them. A test takes a block's text from the document, so that
//! it runs what is printed there; only addresses, secrets and file names that a reader fills in are replaced.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use testkit::documents::{block, commands};
use testkit::eventually;
use testkit::gate::{Log, binary, field, message};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::ADMIN_TOKEN;
use testkit::tokens::Issuer;
use testkit::tools::Running;

/// A folder with `gate.toml` as README builds it up, and the files it names.
struct Reader {
    folder: TempDir,
    issuer: Issuer,
    /// A token for README's route, issued before anything happens.
    token: String,
    upstream: RawUpstream,
}

impl Reader {
    fn new() -> Self {
        let (folder, upstream, authority) =
            (tempfile::tempdir().unwrap(), RawUpstream::start(), Authority::new());
        let issuer = Issuer::new();
        let server = authority.server(&["api.example.com"]);
        let token = issuer.good();
        let reader = Self { folder, issuer, token, upstream };
        reader.file("server.pem", &server.chain);
        reader.file("server.key", &server.key);
        reader.file("ca.pem", &authority.certificate_pem());
        reader.file("jwks.json", &reader.issuer.jwks().to_string());
        reader
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Writes the configuration of README's first minute and its authority, with free ports and keys in a file.
    fn configure(&self) {
        let own = [
            ("listen = [\"0.0.0.0:8443\"]", "listen = [\"127.0.0.1:0\"]\nworkers = 1".to_owned()),
            ("http://127.0.0.1:3000", self.upstream.url()),
            ("discovery = true", "jwks_file = \"jwks.json\"".to_owned()),
            (
                "[[admin.tokens]]",
                "[telemetry]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[admin.tokens]]"
                    .to_owned(),
            ),
        ];
        let mut text = first_minute() + &block("README.md", "[authority]");
        for (printed, value) in own {
            assert_eq!(text.matches(printed).count(), 1, "{printed} in {text}");
            text = text.replace(printed, &value);
        }
        self.file("gate.toml", &text);
    }

    fn command(&self, program: &str) -> Command {
        let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("PATH", path).env_remove("PORTCULLIS_CONFIG");
        command.env("PORTCULLIS_ADMIN_TOKEN", ADMIN_TOKEN).stdin(Stdio::null());
        command
    }

    /// Runs lines in a shell; returns the exit code and the output.
    fn shell(&self, script: &str, admin: SocketAddr) -> (i32, String) {
        let output = self
            .command("bash")
            .args(["-c", &format!("set -uo pipefail\n{script}")])
            .env("PORTCULLIS_ADMIN_URL", format!("http://{admin}"))
            .env("TOKEN", &self.token)
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// The status of a request with the token.
    fn status(&self, public: SocketAddr, path: &str) -> String {
        let asking = format!("{} -o /dev/null -w '%{{http_code}}'", curl(public));
        let field = "-H \"Authorization: Bearer $TOKEN\"";
        self.says(&format!("{asking} {field} https://api.example.com{path}"), nowhere())
    }

    /// The output of lines that must succeed.
    #[track_caller]
    fn says(&self, script: &str, admin: SocketAddr) -> String {
        let (code, printed) = self.shell(script, admin);
        assert_eq!(code, 0, "{script}\n{printed}");
        printed
    }
}

/// curl options that resolve the gate's name in README.
fn curl(public: SocketAddr) -> String {
    format!("curl -sS --cacert ca.pem --connect-to api.example.com:443:{public}")
}

/// README's first configuration.
fn first_minute() -> String {
    block("README.md", "[[routes]]")
}

/// The address that a listener was bound to.
fn address(log: &Log, listener: &str) -> SocketAddr {
    let wanted =
        |record: &Value| message(record) == Some("listening") && field(record, "listener") == Some(listener);
    field(&log.wait_for(listener, wanted), "address").unwrap().parse().unwrap()
}

/// An address at which nobody sends requests.
fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

/// Runs README.md: path = "/deals/{*rest}"
#[test]
fn the_first_configuration_of_the_readme_is_good_as_it_is_printed() {
    let reader = Reader::new();
    reader.file("gate.toml", &first_minute());
    let printed = reader.says("portcullis check --config gate.toml", nowhere());
    assert!(printed.contains("/deals/{*rest}") && printed.contains("/health"), "{printed}");
}

/// Runs docs/configuration.md: secret = { file = "deployments.token" }
/// Runs docs/configuration.md: mv new.toml gate.toml
#[test]
fn secrets_and_a_changed_file_of_the_docs_are_good_as_they_are_printed() {
    let reader = Reader::new();
    let secrets = block("docs/configuration.md", "secret = { file");
    reader.file("deployments.token", "0123456789abcdef0123456789abcdef\n");
    reader.file("gate.toml", &(first_minute() + &secrets));
    for line in commands(&block("docs/configuration.md", "mv new.toml gate.toml")) {
        reader.says(&line, nowhere());
    }
    assert!(!reader.folder.path().join("new.toml").exists(), "it is in place");
}

/// Runs docs/scale.md: store = "redis"
#[test]
fn the_shared_state_of_the_docs_is_good_as_it_is_printed() {
    let reader = Reader::new();
    reader.file("redis-ca.pem", &Authority::new().certificate_pem());
    reader.file("gate.toml", &(first_minute() + &block("docs/scale.md", "store = \"redis\"")));
    reader.says("REDIS_PASSWORD=secret portcullis check --config gate.toml", nowhere());
}

/// Runs README.md: portcullis check --config gate.toml
/// Runs docs/concepts.md: portcullis event role-changed
/// Runs docs/operations.md: portcullis state init
/// Runs docs/operations.md: portcullis state backup
/// Runs README.md: [authority]
/// Runs README.md: curl -d grant_type=client_credentials
/// Runs README.md: portcullis user create alice
/// Runs README.md: portcullis user roles alice
/// Runs docs/admin.md: portcullis event subject-revoked
#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let reader = Reader::new();
    reader.configure();
    for line in commands(&block("docs/operations.md", "portcullis state init")) {
        reader.says(&line, nowhere());
    }
    let [check, explain, run] = &commands(&block("README.md", "portcullis run"))[..] else {
        panic!("three lines")
    };
    assert!(reader.says(check, nowhere()).contains("/deals/{*rest}"));
    let mut process = reader.command("bash");
    process.args(["-c", &format!("exec {run}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Running(process.spawn().unwrap());
    let log = Log::follow(&mut process.0);
    let (public, admin) = (address(&log, "public"), address(&log, "admin"));
    let curl = curl(public);
    eventually("the gate serves", || (reader.status(public, "/deals/7") == "200").then_some(()));
    assert_eq!(reader.status(public, "/health"), "200");
    reader.says(explain, admin);

    // An event ends the token, and explain says so.
    let [event, explain] = &commands(&block("docs/concepts.md", "portcullis event role-changed"))[..] else {
        panic!("two lines")
    };
    reader.file("token", &reader.token);
    assert_eq!(reader.shell(explain, admin).0, 0);
    reader.says(&of_issuer(event), admin);
    let (code, printed) = reader.shell(explain, admin);
    assert!(code == 1 && printed.contains("role_changed"), "{code}: {printed}");
    assert_eq!(reader.status(public, "/deals/7"), "401");

    reader.file("alice.password", "correct horse battery staple\n");
    operate(&reader, admin);
    let users = block("README.md", "portcullis user create alice");
    let said = reader.says(&users.replace("$ ", "").replace('…', ADMIN_TOKEN), admin);
    let word_of = |label: &str| {
        let line = said.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{said}"));
        line.split_whitespace().last().unwrap().to_owned()
    };
    let (id, secret) = (word_of("client id"), word_of("client secret"));
    assert!(said.lines().last().unwrap().starts_with(&id), "the list of credentials: {said}");
    let asking = block("README.md", "curl -d grant_type");
    let [ask] = &commands(&asking)[..] else { panic!("one line") };
    let ask = ask.replace("app_…", &id).replace("client_secret=…", &format!("client_secret={secret}"));
    let answer: Value = serde_json::from_str(&reader.says(&ask.replacen("curl", &curl, 1), admin)).unwrap();
    let printed = asking.lines().find(|line| line.starts_with('{')).unwrap();
    let mut expected: Value = serde_json::from_str(printed).unwrap();
    expected["access_token"] = answer["access_token"].clone();
    assert_eq!(answer, expected);
    let reader = Reader { token: answer["access_token"].as_str().unwrap().to_owned(), ..reader };
    assert_eq!(reader.status(public, "/deals/7"), "200", "with the token that the README gets");
    for line in commands(&block("README.md", "portcullis user roles alice")) {
        reader.says(&line, admin);
    }
    assert_eq!(reader.status(public, "/deals/7"), "401", "after the role is gone");

    std::fs::create_dir(reader.folder.path().join("backups")).unwrap();
    for line in commands(&block("docs/operations.md", "portcullis state backup")) {
        reader.says(&line.replace("/backups/", "backups/"), admin);
    }
    let copies = std::fs::read_dir(reader.folder.path().join("backups")).unwrap();
    assert!(copies.map(|copy| copy.unwrap().path()).any(|copy| is_database(&copy)));
}

/// Runs the commands of docs/admin.md, one after the other, and compares their output where it is printed.
fn operate(reader: &Reader, admin: SocketAddr) {
    let text = block("docs/admin.md", "portcullis event subject-revoked");
    let mut made = String::new();
    let mut said = String::new();
    for line in text.lines() {
        let Some(command) = line.strip_prefix("$ ") else {
            assert_eq!(without_digits(&said), without_digits(line), "after a command");
            continue;
        };
        let command = command.replace("TOKEN=…", &format!("TOKEN={ADMIN_TOKEN}")).replace("app_…", &made);
        let command = if command.contains(" event ") { of_issuer(&command) } else { command };
        said = reader.says(&command, admin).trim_end().to_owned();
        if let Some(id) = said.split_whitespace().find(|word| word.starts_with("app_")) {
            id.clone_into(&mut made);
        }
    }
    reader.says("portcullis user delete alice", admin);
}

/// Adds the issuer, which an event needs once the authority is the second one.
fn of_issuer(event: &str) -> String {
    format!("{event} --issuer https://idp.example.com/")
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn is_database(path: &Path) -> bool {
    std::fs::read(path).unwrap().starts_with(b"SQLite format 3\0")
}
