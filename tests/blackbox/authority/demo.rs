//! `portcullis demo`: its printed lines as pasted, its tour, the shipped Postman collection against it, and what it
//! leaves behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use testkit::eventually;
use testkit::gate::{Log, binary};
use testkit::tools::{Running, node_modules};

/// A running demo whose temporary files go into a folder of the test.
struct Demo {
    process: Running,
    log: Log,
    folder: TempDir,
}

fn spawn(arguments: &[&str], folder: &TempDir) -> Child {
    let mut command = Command::new(binary());
    command.arg("demo").args(arguments).env("TMPDIR", folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn is_empty(folder: &TempDir) -> bool {
    std::fs::read_dir(folder.path()).unwrap().next().is_none()
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Running(spawn(arguments, &folder));
        let log = Log::follow(&mut process.0);
        Self { process, log, folder }
    }

    /// What it prints once it is up.
    fn text(&self) -> String {
        // The command that is printed last; before it is read, all lines above it have been.
        eventually("the demo prints its lines", || {
            let text = self.log.text();
            commands(&text).last().is_some_and(|last| last.ends_with("/metrics")).then_some(text)
        })
    }

    /// Ends it as Ctrl-C or a supervisor does.
    fn end(mut self, signal: &str) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let status = eventually("the demo ends", || self.process.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{}", self.log.text());
        assert!(is_empty(&self.folder), "{signal} leaves something behind");
    }
}

/// The commands that a text tells its reader to paste, each a line of its own that begins with the name of a program or
/// of a variable.
fn commands(text: &str) -> Vec<String> {
    let starts = ["curl ", "portcullis ", "export ", "TOKEN=", "echo "];
    let lines = text.lines().map(str::trim_start);
    lines.filter(|line| starts.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
}

/// Runs a script in a shell that finds the binary under test as `portcullis`.
fn shell(script: &str) -> String {
    let folder = binary().parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", &format!("set -euo pipefail\n{script}")])
        .env("PATH", path)
        .env_remove("PORTCULLIS_ADMIN_URL")
        .env_remove("PORTCULLIS_ADMIN_TOKEN")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[test]
fn the_lines_that_the_demo_prints_work_as_they_stand() {
    let demo = Demo::start(&[]);
    let commands = commands(&demo.text());
    let status = |command: &str| {
        let head = shell(command);
        head.lines().next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let with_head: Vec<&String> = commands.iter().filter(|command| command.starts_with("curl -i")).collect();
    let statuses: Vec<String> = with_head.iter().map(|command| status(command)).collect();
    assert_eq!(statuses, ["200", "401", "403"], "{commands:#?}");

    let asking = commands.iter().position(|command| command.contains("/oauth/token")).unwrap();
    let [ask, keep @ ..] = &commands[asking..asking + 3] else { panic!("{commands:#?}") };
    let answer: Value = serde_json::from_str(&shell(ask)).unwrap();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&"Bearer".into(), &3600.into()), "{answer}");

    let exports = commands.iter().position(|command| command.starts_with("export ")).unwrap();
    let operating: Vec<&str> = commands[exports..]
        .iter()
        .take_while(|command| !command.starts_with("curl"))
        .map(String::as_str)
        .collect();
    let printed = shell(&operating.join("\n"));
    assert!(printed.contains("Invoice robot"), "{printed}");
    assert_eq!(status(with_head[0]), "401", "ada's role was taken away");
    shell(&operating.join("\n").replace("ada --role", "ada --role case-reader --role"));
    shell(&keep.join("\n"));
    assert_eq!(status(with_head[0]), "200", "with the token that was kept");
    let metrics = shell(commands.last().unwrap());
    assert!(metrics.contains("portcullis_decisions_total"), "{metrics}");
    demo.end("-INT");
}

#[test]
fn the_demo_listens_where_it_is_told_and_stays_on_loopback() {
    let ports = [testkit::ports::ClaimedPort::new(), testkit::ports::ClaimedPort::new()];
    let [listen, admin] = ports.each_ref().map(|port| port.address);
    let demo = Demo::start(&["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    let text = demo.text();
    for address in [listen, admin] {
        assert!(text.contains(&format!("//{address}")), "{text}");
        drop(std::net::TcpStream::connect(address).unwrap());
    }
    demo.end("-TERM");
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--listen", "--admin"] {
        let output = spawn(&[flag, "0.0.0.0:0"], &folder).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    assert!(is_empty(&folder));
}

#[test]
fn the_tour_ticks_every_step_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = spawn(&["--tour"], &folder).wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), err.as_ref()), (Some(0), ""), "{out}");
    let steps: Vec<&str> = out.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(steps.len() >= 30 && steps.iter().all(|line| line.starts_with("  ✓ ")), "{out}");
    for told in [
        "without a token: 401",
        "with a token: 200",
        "403",
        "loses the role",
        "does not carry the revoked role",
        "idle: 401",
    ] {
        assert!(out.contains(told), "{told} in {out}");
    }
    let last = out.lines().last().unwrap();
    let seconds = last.rsplit_once(", in ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(seconds.is_some(), "{last}");
    assert!(is_empty(&folder));
}

#[test]
fn the_postman_collection_passes_against_the_demo() {
    let demo = Demo::start(&[]);
    let text = demo.text();
    let word_after = |mark: &str| {
        let at = text.find(mark).unwrap_or_else(|| panic!("{mark} in {text}")) + mark.len();
        text[at..].split_whitespace().next().unwrap().to_owned()
    };
    let variables = [
        ("baseUrl", word_after("  gate ")),
        ("adminUrl", word_after("  admin ")),
        ("adminToken", word_after("PORTCULLIS_ADMIN_TOKEN=")),
    ];
    let report = demo.folder.path().with_extension("report");
    let collection = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/portcullis.postman_collection.json");
    let mut newman = Command::new(node_modules().join(".bin/newman"));
    newman.arg("run").arg(&collection).args(["--color", "off", "--reporters", "cli,json"]);
    newman.arg("--reporter-json-export").arg(&report);
    newman.args(["--ssl-extra-ca-certs", &word_after("--cacert ")]);
    for (name, value) in &variables {
        newman.arg("--env-var").arg(format!("{name}={value}"));
    }
    let output = newman.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&{
        let bytes = std::fs::read(&report).unwrap();
        std::fs::remove_file(&report).unwrap();
        bytes
    })
    .unwrap();
    let stats = &report["run"]["stats"];
    let count = |what: &str, which: &str| stats[what][which].as_u64().unwrap();
    assert_eq!((count("requests", "total"), count("requests", "failed")), (18, 0), "{stats}");
    assert_eq!((count("assertions", "total"), count("assertions", "failed")), (44, 0), "{stats}");
    let shipped: Value = serde_json::from_slice(&std::fs::read(&collection).unwrap()).unwrap();
    let names: BTreeSet<&str> = shipped["variable"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["key"].as_str().unwrap())
        .collect();
    for (name, _) in &variables {
        assert!(names.contains(name), "{name} can be set");
    }
    for (secret, value) in shipped["variable"].as_array().unwrap().iter().map(|v| (&v["key"], &v["value"])) {
        let is_secret = ["adminToken", "clientSecret", "accessToken"].iter().any(|name| secret == name);
        assert!(!is_secret || value == "", "{secret} is shipped empty");
    }
    demo.end("-INT");
}
