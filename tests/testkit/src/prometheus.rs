//! A real Prometheus server as a process of the test: on a free port, with a folder of its own, stopped on drop.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::eventually;
use crate::ports::ClaimedPort;
use crate::tools::{Running, root};
use crate::wire::Wire;

/// A running server that scrapes every two seconds.
pub struct PrometheusServer {
    process: Running,
    port: ClaimedPort,
    _folder: TempDir,
}

impl PrometheusServer {
    /// Starts a server with these targets, by job, and these rule files of the repository.
    pub fn start(targets: &[(&str, SocketAddr)], rules: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("portcullis-prometheus-").tempdir().unwrap();
        let paths: Vec<PathBuf> = rules.iter().map(|rules| root().join(rules)).collect();
        let mut settings = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}\n\
             rule_files: {paths:?}\nscrape_configs:\n"
        );
        for (job, address) in targets {
            writeln!(
                settings,
                "- {{job_name: {job}, static_configs: [{{targets: [{:?}]}}]}}",
                address.to_string()
            )
            .unwrap();
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, settings).unwrap();
        let port = ClaimedPort::new();
        let process = Running::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                .arg(format!("--web.listen-address={}", port.address))
                .arg("--log.level=error")
                .stderr(Stdio::inherit()),
        );
        let mut server = Self { process, port, _folder: folder };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        eventually("Prometheus is ready", || {
            let ended = self.process.0.try_wait().unwrap();
            assert!(ended.is_none(), "Prometheus ended: {ended:?}");
            let mut wire = Wire::try_plain(self.port.address).ok()?;
            let answer = wire.exchange("GET /-/ready HTTP/1.1\r\nHost: prometheus\r\n\r\n").ok()?;
            (answer.status() == 200).then_some(())
        });
    }

    /// The current samples of an expression, or what is wrong with the expression.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let body = format!("query={}", percent_encoded(expression));
        let answer = self.call(&format!(
            "POST /api/v1/query HTTP/1.1\r\nHost: prometheus\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        match answer["data"]["result"].as_array() {
            Some(samples) => Ok(samples.clone()),
            None => Err(answer["error"].to_string()),
        }
    }

    /// The rules that it evaluates, with the health of each.
    pub fn rules(&self) -> Vec<Value> {
        let answer = self.call("GET /api/v1/rules HTTP/1.1\r\nHost: prometheus\r\n\r\n");
        let groups = answer["data"]["groups"].as_array().expect("groups of rules");
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    fn call(&self, request: &str) -> Value {
        Wire::plain(self.port.address).exchange(request).unwrap().json()
    }
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encoded).collect()
}
