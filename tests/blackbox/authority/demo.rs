//! `portcullis demo`: its printed commands as pasted, its tour, the shipped Postman collection against it, and
//! what it leaves behind.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use testkit::eventually;
use testkit::gate::{Log, binary};
use testkit::issuer::KeyServer;
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::tokens::Issuer;
use testkit::tools::{Running, node_modules};

/// A running demo whose temporary files are in a folder of the test.
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

    /// The text that it prints once it is ready.
    fn text(&self) -> String {
        // The line that is printed last; before it is read, all lines above it have been.
        eventually("the demo prints its lines", || {
            let text = self.log.text();
            let (text, _logged) = text.split_once("The gate logs your requests here:")?;
            Some(text.to_owned())
        })
    }

    /// Stops it like Ctrl-C or a supervisor.
    fn end(mut self, signal: &str) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let status = eventually("the demo ends", || self.process.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{}", self.log.text());
        assert!(is_empty(&self.folder), "{signal} leaves something behind");
    }
}

/// The commands of a text that its reader pastes, each with its heading.
fn steps(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("  ") {
            Some(command) => steps.last_mut().unwrap().1.push(command),
            None => steps.push((line, Vec::new())),
        }
    }
    let begins =
        steps.iter().position(|(heading, _)| heading.starts_with("200:") || heading.starts_with("401:"));
    steps.split_off(begins.unwrap())
}

/// A terminal into which a visitor pastes commands, one after the other.
struct Terminal {
    shell: Running,
    output: BufReader<ChildStdout>,
}

impl Terminal {
    fn open() -> Self {
        let mut bash = Command::new("bash");
        bash.env_remove("PORTCULLIS_ADMIN_URL").env_remove("PORTCULLIS_ADMIN_TOKEN");
        bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = Running(bash.spawn().unwrap());
        let output = BufReader::new(shell.0.stdout.take().unwrap());
        Self { shell, output }
    }

    /// Returns the output of a command, and its exit code. `typed` is what the visitor then types.
    fn paste(&mut self, line: &str, typed: &str) -> (i32, String) {
        const END: &str = "--- ended with";
        let typed = if typed.is_empty() { String::new() } else { format!("{typed}\n") };
        let lines = format!("{line}\n{typed}printf '\\n{END} %s\\n' $?\n");
        self.shell.0.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the shell ended: {printed}");
            if let Some(code) = line.strip_prefix(END) {
                return (code.trim().parse().unwrap(), printed);
            }
            printed.push_str(&line);
        }
    }
}

/// Pastes every command of a text, in order. If a heading names a status, `curl -i` must show it; all others must
/// succeed. `typed` is what the visitor types when a command reads input; `edited` changes a command before it is pasted.
fn play(text: &str, typed: &str, edited: impl Fn(&str) -> String) -> Vec<(String, String)> {
    let mut terminal = Terminal::open();
    let mut printed = Vec::new();
    for (heading, commands) in steps(text) {
        assert!(!commands.is_empty(), "{heading}");
        let (promised, _) = heading.split_once(':').unwrap_or_default();
        for command in commands {
            let answer = if command.starts_with("read ") { typed } else { "" };
            let (code, output) = terminal.paste(&edited(command), answer);
            assert_eq!(code, 0, "{heading}\n{command}\n{output}");
            if command.contains(" -i ") {
                let status = output.lines().next().unwrap_or_default().split(' ').nth(1);
                assert_eq!(status, Some(promised), "{heading}\n{command}\n{output}");
            }
            printed.push((command.to_owned(), output));
        }
    }
    printed
}

fn output_of<'a>(printed: &'a [(String, String)], part: &str) -> &'a str {
    let found = printed.iter().find(|(command, _)| command.contains(part));
    &found.unwrap_or_else(|| panic!("{part} in {printed:#?}")).1
}

#[test]
fn the_lines_that_the_demo_prints_work_as_they_stand() {
    let demo = Demo::start(&[]);
    let text = demo.text();
    let printed = play(&text, "", str::to_owned);
    assert!(printed.len() >= 12, "{printed:#?}");
    assert!(output_of(&printed, "credential list").contains("Invoice robot"));
    let metrics = output_of(&printed, "/metrics");
    assert!(metrics.contains("portcullis_decisions_total"), "{metrics}");
    // Log lines come after the printed ones, and then they do come.
    assert!(!text.contains("portcullis::"), "{text}");
    eventually("the log shows requests", || demo.log.text().contains("403").then_some(()));
    demo.end("-INT");
}

#[test]
fn a_failed_token_request_leaves_the_kept_token_as_it_is() {
    let demo = Demo::start(&[]);
    let text = demo.text();
    let mut terminal = Terminal::open();
    let steps = steps(&text);
    let commands: Vec<&str> = steps.iter().flat_map(|(_, commands)| commands.iter().copied()).collect();
    let keep = commands.iter().find(|command| command.starts_with("NEW=")).unwrap();
    let kept = keep.rsplit_once(" > ").unwrap().1;
    let before = std::fs::read(kept).unwrap();
    let (code, _) = terminal.paste(&keep.replace("/oauth/token", "/oauth/no-such"), "");
    assert_ne!(code, 0);
    assert_eq!(std::fs::read(kept).unwrap(), before);
    let (code, output) = terminal.paste(keep, "");
    assert_eq!(code, 0, "{output}");
    assert_ne!(std::fs::read(kept).unwrap(), before, "another token");
    demo.end("-INT");
}

#[test]
fn the_demo_accepts_the_tokens_of_an_identity_provider_one_has() {
    let issuer = Issuer::new();
    let server = KeyServer::start(issuer.jwks());
    let upstream = RawUpstream::scripted(|exchange| exchange.ok("the API one has"));
    let name = server.issuer_url();
    // One that the visitor had before there was a demo.
    let token = issuer.token().claim("iss", name.as_str()).claim("iat", now() - 600).build();
    let arguments = ["--issuer", &name, "--audience", &issuer.audience, "--upstream", &upstream.url()];
    let demo = Demo::start(&arguments);
    let printed = play(&demo.text(), &token, |line| line.replace("SUBJECT", "alice"));
    assert!(output_of(&printed, "-H @").contains("the API one has"), "{printed:#?}");
    assert!(output_of(&printed, "explain").contains("allowed"), "{printed:#?}");
    demo.end("-INT");
}

#[test]
fn the_demo_says_what_it_waits_for_when_the_identity_provider_does_not_answer() {
    let nobody = testkit::ports::reserved();
    let demo = Demo::start(&["--issuer", &format!("http://{nobody}/"), "--audience", "api"]);
    eventually("the demo says what is missing", || {
        let text = demo.log.text();
        (text.contains("waiting for the gate to become ready: keys:http://") && text.contains("refused"))
            .then_some(())
    });
    demo.end("-INT");
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["--issuer", "http://127.0.0.1:1/"][..],
        &["--audience", "api"],
        &["--upstream", "http://127.0.0.1:1"],
    ] {
        let output = spawn(arguments, &folder).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    // What is wrong with a name, the configuration's own check says.
    let output = spawn(&["--issuer", "ftp://idp", "--audience", "api"], &folder).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("issuers[0].issuer"), "{output:?}");
    assert!(is_empty(&folder));
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
        ("adminToken", word_after(" PORTCULLIS_ADMIN_TOKEN=")),
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
