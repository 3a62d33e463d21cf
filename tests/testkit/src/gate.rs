//! The built binary as a process of the test: started on free ports, observed through its log, stopped on drop.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

pub use crate::command::{Outcome, binary, check, path_text, portcullis, portcullis_reading, run_to_end};
pub use crate::log::{Log, field, message};
use crate::metrics::Scrape;
use crate::settings::Settings;
use crate::wire::{Answer, Wire};
use crate::{PATIENCE, eventually, within};

/// A running gate.
pub struct Gate {
    child: Child,
    /// Its configuration.
    pub settings: Settings,
    /// The public listener.
    pub public: SocketAddr,
    /// The telemetry listener.
    pub telemetry: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    log: Log,
}

impl Gate {
    /// Starts a gate and waits until it is ready.
    pub fn start(settings: &Settings) -> Self {
        let gate = Self::launch(settings);
        gate.wait_until_ready();
        gate
    }

    /// Starts a gate and waits only until it listens.
    pub fn launch(settings: &Settings) -> Self {
        Self::launch_with(settings, |_| {})
    }

    /// Like [`Self::launch`]; `prepare` can change how the process is started.
    pub fn launch_with(settings: &Settings, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::launch_as(Command::new(binary()), settings, prepare)
    }

    /// Like [`Self::launch`], through a program that replaces itself with the one it is given, such as `prlimit`.
    pub fn launch_under(program: &[&str], settings: &Settings) -> Self {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(binary());
        Self::launch_as(command, settings, |_| {})
    }

    /// Like [`Self::launch`] for a gate that may not start: returns its output and exit code if it did not.
    pub fn attempt(settings: &Settings) -> Result<Self, (String, Option<i32>)> {
        Self::spawn(Command::new(binary()), settings, |_| {})
    }

    fn launch_as(command: Command, settings: &Settings, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::spawn(command, settings, prepare)
            .unwrap_or_else(|(said, code)| panic!("the gate ended: {code:?}\n{said}"))
    }

    fn spawn(
        mut command: Command,
        settings: &Settings,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, (String, Option<i32>)> {
        command.arg("run").arg("--config").arg(settings.write());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Log::follow(&mut child);
        let mut gate = Self {
            child,
            settings: settings.clone(),
            public: ([127, 0, 0, 1], 0).into(),
            telemetry: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
            log,
        };
        gate.public = gate.listening("public")?;
        gate.telemetry = gate.listening("telemetry")?;
        gate.admin = gate.listening("admin")?;
        Ok(gate)
    }

    /// The address that a listener was bound to, according to the log; or the output of a process that has ended.
    fn listening(&mut self, listener: &str) -> Result<SocketAddr, (String, Option<i32>)> {
        eventually(&format!("the gate tells where its {listener} listener is"), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.log.wait_for_end();
                return Some(Err((self.log.text(), status.code())));
            }
            self.log.records().iter().find_map(|record| {
                let told =
                    message(record) == Some("listening") && field(record, "listener") == Some(listener);
                if told { field(record, "address")?.parse().ok().map(Ok) } else { None }
            })
        })
    }

    /// Waits until `/ready` responds with 200.
    pub fn wait_until_ready(&self) {
        eventually("the gate is ready", || {
            let (status, body) = self.readiness();
            assert!(status == 200 || status == 503, "{status} {body}");
            (status == 200).then_some(())
        });
    }

    /// Status and body of `/ready`.
    pub fn readiness(&self) -> (u16, Value) {
        let answer = self.telemetry("/ready");
        (answer.status(), answer.json())
    }

    /// Sends `GET` to the telemetry listener.
    pub fn telemetry(&self, path: &str) -> Answer {
        let mut wire = Wire::plain(self.telemetry);
        wire.exchange(format!("GET {path} HTTP/1.1\r\nHost: telemetry\r\nConnection: close\r\n\r\n")).unwrap()
    }

    /// A scrape of the metrics.
    pub fn metrics(&self) -> Scrape {
        Scrape::parse(&self.telemetry("/metrics").text())
    }

    /// Presents new tokens until one is accepted, and returns it. For tokens that are idle soon after their issue:
    /// a busy machine may present one of them too late.
    pub fn use_in_time(&self, path: &str, mut issue: impl FnMut() -> String) -> String {
        eventually("a token is used before it is idle", || {
            let token = issue();
            (self.get(path).token(&token).send().status() == 200).then_some(token)
        })
    }

    /// Waits until the metrics satisfy `probe`.
    pub fn wait_for_metric<T>(&self, what: &str, mut probe: impl FnMut(&Scrape) -> Option<T>) -> T {
        eventually(what, || probe(&self.metrics()))
    }

    /// Connects to the public listener: over TLS with HTTP/1.1 if the gate has TLS.
    pub fn connect(&self) -> Wire {
        if self.settings.has_tls() {
            let config = self.settings.authority().client_config(&["http/1.1"], None);
            Wire::tls(self.public, "localhost", config).unwrap()
        } else {
            Wire::plain(self.public)
        }
    }

    /// A URL on the public listener.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.settings.has_tls() { "https" } else { "http" };
        format!("{scheme}://localhost:{}{path}", self.public.port())
    }

    /// Runs curl against the public listener and returns its output.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> String {
        let (url, ca) = (self.url(path), self.settings.folder().join("ca.pem"));
        let resolve = format!("localhost:{}:127.0.0.1", self.public.port());
        let mut all = vec!["-sS", "--max-time", "120", "--resolve", &resolve, &url];
        if self.settings.has_tls() {
            all.extend(["--cacert", path_text(&ca)]);
        }
        crate::tools::run("curl", &[&all[..], arguments].concat())
    }

    /// Starts building a request.
    pub fn request(&self, method: &str, target: &str) -> Request<'_> {
        let fields = vec![("Host".to_owned(), "api.test".to_owned())];
        Request { gate: self, method: method.to_owned(), target: target.to_owned(), fields, body: Vec::new() }
    }

    /// Starts building a `GET` request.
    pub fn get(&self, target: &str) -> Request<'_> {
        self.request("GET", target)
    }

    /// Runs `act`, which must cause one decision, and returns the decision, such as `deny/expired`.
    pub fn decision<T>(&self, act: impl FnOnce() -> T) -> (T, String) {
        let before = self.metrics().decisions();
        let done = act();
        let decided = self.wait_for_metric("the decision is counted", |scrape| {
            scrape
                .decisions()
                .into_iter()
                .find(|(word, count)| *count > before.get(word).copied().unwrap_or_default())
        });
        (done, decided.0)
    }

    /// The log so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The log record of the request with this id.
    pub fn record_of(&self, request_id: &str) -> Value {
        self.log.wait_for(&format!("the record of request {request_id}"), |record| {
            field(record, "request_id") == Some(request_id)
        })
    }

    /// Sends a signal by name: `TERM`, `HUP`, `INT`.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait_for_exit(PATIENCE);
    }

    /// Stops the process gracefully.
    pub fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.wait_for_exit(PATIENCE).code(), Some(0), "{}", self.log.text());
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the process to end.
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        within(limit, "the gate ends", || self.child.try_wait().unwrap())
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A value of `/proc/PID/status` in KiB, such as `VmHWM`.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many file descriptors the process has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Waits until this many reloads have ended with `result`.
    pub fn wait_for_reloads(&self, result: &str, count: f64) {
        self.wait_for_metric(&format!("{count} reloads with result {result}"), |scrape| {
            (scrape.sum("portcullis_config_reloads_total", &[("result", result)]) >= count).then_some(())
        });
    }

    /// How many reloads ended with `result`.
    pub fn reloads(&self, result: &str) -> f64 {
        self.metrics().sum("portcullis_config_reloads_total", &[("result", result)])
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("--- log of the gate on {}\n{}", self.public, self.log.text());
        }
    }
}

/// A builder for a request to a gate, which is sent on a connection of its own.
#[derive(Clone)]
pub struct Request<'a> {
    gate: &'a Gate,
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request<'_> {
    /// Adds a header field.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        if name.eq_ignore_ascii_case("host") {
            self.fields.retain(|(name, _)| name != "Host");
        }
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a bearer token.
    pub fn token(self, token: &str) -> Self {
        self.field("Authorization", &format!("Bearer {token}"))
    }

    /// Sets the body, and sends its length.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.field("Content-Length", &length)
    }

    /// The request's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it and reads the response.
    pub fn send(&self) -> Answer {
        self.gate.connect().exchange(self.bytes()).unwrap()
    }
}
