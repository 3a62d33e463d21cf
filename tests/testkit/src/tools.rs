//! Third-party programs: curl, openssl, nghttpd, an OpenID provider. A missing one fails the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// Runs a program to its end and returns what it printed; fails the test when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A program that runs beside the test and stops with it.
pub struct Running(pub Child);

impl Running {
    /// Starts it with pipes for input and output.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{name}: {error}; tests/run installs it")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A real OpenID provider (`oidc-provider` on Node.js) with client credentials, JWT access tokens and key rotation.
pub struct OpenIdProvider {
    _process: Running,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its issuer URL.
    pub issuer: String,
}

impl OpenIdProvider {
    /// Starts it on a free port of loopback, signing with `alg`.
    pub fn start(alg: &str) -> Self {
        let modules = node_modules();
        let mut process = Running::start(
            Command::new("node")
                .arg(root().join("tests/node/provider.mjs"))
                .arg(&modules)
                .arg(alg)
                .stderr(Stdio::null()),
        );
        let commands = process.0.stdin.take().unwrap();
        let answers = BufReader::new(process.0.stdout.take().unwrap());
        let mut provider = Self { _process: process, commands, answers, issuer: String::new() };
        provider.issuer = provider.read()["issuer"].as_str().unwrap().to_owned();
        provider
    }

    /// Replaces the signing key; new tokens are signed with the new one. `keep`: the old key stays published.
    pub fn rotate(&mut self, keep: bool) -> String {
        self.command(if keep { "rotate" } else { "replace" })["kid"].as_str().unwrap().to_owned()
    }

    /// Requests an access token with the client-credentials grant.
    pub fn token(&mut self) -> String {
        self.command("token")["access_token"].as_str().unwrap().to_owned()
    }

    /// Sets the URL for back-channel logouts of the client `web`.
    pub fn register_logout(&mut self, url: &str) {
        self.command(&format!("register {url}"));
    }

    /// Logs `alice` in to the client `web` with a browser; returns the access token, which names the session in `sid`.
    pub fn log_in(&mut self) -> String {
        let answer = self.command("login");
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Logs the browser out; returns whether the back-channel logout was delivered: `told`, or an error.
    pub fn log_out(&mut self) -> String {
        self.command("logout")["told"].as_str().unwrap().to_owned()
    }

    fn command(&mut self, word: &str) -> Value {
        writeln!(self.commands, "{word}").unwrap();
        self.read()
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in the provider's answer {line:?}"))
    }
}

/// The root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder into which `tests/run` installs the npm packages.
pub fn node_modules() -> PathBuf {
    let path = root().join(".cache/node/node_modules");
    assert!(path.is_dir(), "{} is missing; tests/run installs it", path.display());
    path
}

/// The Python into which `tests/run` installs the packages from PyPI.
pub fn python() -> PathBuf {
    let path = root().join(".cache/python/bin/python");
    assert!(path.exists(), "{} is missing; tests/run installs it", path.display());
    path
}
