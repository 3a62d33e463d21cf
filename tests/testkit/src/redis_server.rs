//! A real `redis-server` as a process of the test: on a free port, in a folder of its own, stopped on drop.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use redis::{FromRedisValue, RedisResult};
use tempfile::TempDir;

use crate::eventually;
use crate::ports::ClaimedPort;

/// A running server.
pub struct RedisServer {
    child: Child,
    program: &'static str,
    /// Its port on loopback.
    pub port: u16,
    folder: Arc<TempDir>,
    arguments: Vec<String>,
    /// Also held while the server is stopped.
    _claim: ClaimedPort,
}

impl RedisServer {
    /// Starts a durable primary.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a primary with further arguments; later ones override earlier ones.
    pub fn with(arguments: &[&str]) -> Self {
        let durable = [
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--repl-diskless-sync-delay",
            "0",
        ];
        Self::run("redis-server", None, &[&durable, arguments].concat())
    }

    /// Starts a primary that only accepts TLS.
    pub fn tls(arguments: &[&str]) -> Self {
        Self::with(&[&["--tls-port", PORT, "--port", "0"], arguments].concat())
    }

    /// Starts a replica of another server.
    pub fn replica_of(primary: &Self, arguments: &[&str]) -> Self {
        let port = primary.port.to_string();
        let replica = Self::with(&[&["--replicaof", "127.0.0.1", &port], arguments].concat());
        eventually("the replica is in step", || {
            let info: String = replica.try_ask(&["INFO", "replication"]).ok()?;
            info.contains("master_link_status:up").then_some(())
        });
        replica
    }

    /// Starts a sentinel that alone can declare the primary called `main` down.
    pub fn sentinel(primary: &Self) -> Self {
        let configuration = format!(
            "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            primary.port
        );
        let sentinel = Self::run("redis-sentinel", Some(&configuration), &[]);
        eventually("the sentinel knows the replica", || {
            let found: Vec<Vec<String>> = sentinel.try_ask(&["SENTINEL", "REPLICAS", "main"]).ok()?;
            (!found.is_empty()).then_some(())
        });
        sentinel
    }

    fn run(program: &'static str, configuration: Option<&str>, arguments: &[&str]) -> Self {
        for _ in 0..20 {
            if let Some(server) = Self::try_run(program, configuration, arguments) {
                return server;
            }
        }
        panic!("{program} does not start");
    }

    /// Returns `None` if a program that does not belong to a test took the port.
    fn try_run(program: &'static str, configuration: Option<&str>, arguments: &[&str]) -> Option<Self> {
        let folder = Arc::new(tempfile::Builder::new().prefix("portcullis-redis-").tempdir().unwrap());
        let (claim, mut all) = (ClaimedPort::new(), Vec::<String>::new());
        let port = claim.number();
        if let Some(text) = configuration {
            let path = folder.path().join("server.conf");
            std::fs::write(&path, text).unwrap();
            all.push(path.to_str().unwrap().to_owned());
        }
        let (path, number) = (folder.path().to_str().unwrap(), port.to_string());
        all.extend(["--port", &number, "--bind", "127.0.0.1", "--dir", path].map(str::to_owned));
        all.extend(arguments.iter().map(|argument| argument.replace(PORT, &number)));
        let child = spawn(program, &all, folder.path());
        let mut server = Self { child, program, port, folder, arguments: all, _claim: claim };
        server.is_up().then_some(server)
    }

    /// Waits until this very process responds; false if it ended instead.
    fn is_up(&mut self) -> bool {
        eventually("the server answers or ends", || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            if self.arguments.iter().any(|argument| argument == "--tls-port") {
                return self.log().contains("Ready to accept connections").then_some(true);
            }
            match self.try_ask::<String>(&["INFO", "server"]) {
                Ok(info) => info.contains(&format!("process_id:{}\r", self.child.id())).then_some(true),
                // A server that asks for a password has finished loading.
                Err(error) => error.code().is_some_and(|code| code == "NOAUTH").then_some(true),
            }
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The folder with its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command on it.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs a command that may fail.
    pub fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut connection)
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Restarts it with the files it left.
    pub fn start_again(&mut self) {
        eventually("its port is free again", || {
            self.child = spawn(self.program, &self.arguments, self.folder.path());
            self.is_up().then_some(())
        });
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // The test may have killed it already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn spawn(program: &str, arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"))
}

/// The placeholder for the port in arguments.
const PORT: &str = "{port}";
