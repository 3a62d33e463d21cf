//! A real `redis-server` as a process of the test: on a free port, in a folder of its own, ended on drop.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use redis::{FromRedisValue, RedisResult};
use tempfile::TempDir;

use crate::support::eventually;

/// A running server.
pub struct Server {
    child: Child,
    program: &'static str,
    pub port: u16,
    folder: Arc<TempDir>,
    arguments: Vec<String>,
}

impl Server {
    /// A primary that forgets nothing.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same with further arguments; later ones go before earlier ones.
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
        Self::run("redis-server", free_port(), None, &[&durable, arguments].concat())
    }

    /// A replica of another server.
    pub fn replica_of(primary: &Self, arguments: &[&str]) -> Self {
        let port = primary.port.to_string();
        let replica = Self::with(&[&["--replicaof", "127.0.0.1", &port], arguments].concat());
        eventually("the replica is in step", || {
            let info: String = replica.try_ask(&["INFO", "replication"]).ok()?;
            info.contains("master_link_status:up").then_some(())
        });
        replica
    }

    /// A sentinel, alone able to declare the primary called `main` dead.
    pub fn sentinel(primary: &Self) -> Self {
        let configuration = format!(
            "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            primary.port
        );
        let sentinel = Self::run("redis-sentinel", free_port(), Some(&configuration), &[]);
        eventually("the sentinel knows the replica", || {
            let found: Vec<Vec<String>> = sentinel.try_ask(&["SENTINEL", "REPLICAS", "main"]).ok()?;
            (!found.is_empty()).then_some(())
        });
        sentinel
    }

    fn run(program: &'static str, port: u16, configuration: Option<&str>, arguments: &[&str]) -> Self {
        let folder = Arc::new(tempfile::Builder::new().prefix("portcullis-redis-").tempdir().unwrap());
        let mut all: Vec<String> = Vec::new();
        if let Some(text) = configuration {
            let path = folder.path().join("server.conf");
            std::fs::write(&path, text).unwrap();
            all.push(path.to_str().unwrap().to_owned());
        }
        let path = folder.path().to_str().unwrap();
        all.extend(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", path].map(str::to_owned));
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let server =
            Self { child: spawn(program, &all, folder.path()), program, port, folder, arguments: all };
        server.wait();
        server
    }

    fn wait(&self) {
        if self.arguments.iter().any(|argument| argument == "--tls-port") {
            return;
        }
        eventually("the server answers", || match self.try_ask::<String>(&["PING"]) {
            Ok(_) => Some(()),
            Err(error) => error.code().is_some_and(|code| code == "NOAUTH").then_some(()),
        });
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Asks it something.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same, where it may fail.
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

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with the files it left.
    pub fn start_again(&mut self) {
        self.child = spawn(self.program, &self.arguments, self.folder.path());
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

fn spawn(program: &str, arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"))
}

/// A port that nobody listens on, and low enough for a cluster's second port above it.
pub fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}
