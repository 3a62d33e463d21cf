//! Follows docs/quickstart.md like a reader: each part in an empty folder, in one shell, comparing the output
//! with the printed one; and parts of the runbook on the gate that a part has started. Ports are free ones;
//! keys and tokens of the identity provider are the test's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use testkit::documents::{Block, blocks_under};
use testkit::eventually;
use testkit::gate::binary;
use testkit::ports::ClaimedPort;
use testkit::tokens::Issuer;
use testkit::tools::Running;

const PAGE: &str = "docs/quickstart.md";

/// Programs that run in a terminal of their own, and what they print once they are ready.
const SERVERS: [(&str, &str); 3] = [
    ("python3 -m http.server", "Serving HTTP"),
    ("redis-server", "Ready to accept connections"),
    ("portcullis run", "\"listener\":\"admin\""),
];

/// Marks the end of a command's output; the exit code follows.
const END: &str = "--- end of a command: ";

/// One shell, into which a reader types a part of the page.
struct Reader {
    folder: TempDir,
    /// Dropped last, with everything it started.
    shell: Running,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    ports: Vec<(&'static str, ClaimedPort)>,
    servers: usize,
    /// The values for `…` after these texts.
    values: Vec<(&'static str, String)>,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.current_dir(folder.path()).env("PATH", path).env("PYTHONUNBUFFERED", "1");
        for name in ["PORTCULLIS_CONFIG", "PORTCULLIS_ADMIN_URL", "PORTCULLIS_ADMIN_TOKEN"] {
            command.env_remove(name);
        }
        let mut shell = Running::start(command.stderr(Stdio::inherit()));
        let (input, output) = (shell.0.stdin.take(), BufReader::new(shell.0.stdout.take().unwrap()));
        let ports = ["8443", "3000", "9443", "9464", "6379"].map(|printed| (printed, ClaimedPort::new()));
        let mut reader =
            Self { folder, shell, input, output, ports: ports.into(), servers: 0, values: Vec::new() };
        reader.run("trap 'kill $(jobs -p); wait' EXIT; exec 2>&1");
        let admin = reader.own("http://127.0.0.1:9443");
        reader.run(&format!("export PORTCULLIS_ADMIN_URL={admin}"));
        reader
    }

    /// Follows a part of the page; the TOML blocks become files with these names.
    fn follow(&mut self, heading: &str, files: &[&str], change: impl Fn(&str) -> String) {
        let mut files = files.iter();
        for block in blocks_under(PAGE, heading) {
            if block.language == "toml" {
                let text = self.own(&change(&block.text));
                std::fs::write(self.place().join(files.next().unwrap()), text).unwrap();
            } else {
                self.play(&block);
            }
        }
        assert_eq!(files.next(), None, "a file that the page does not have");
    }

    /// Runs the commands under a heading of the runbook, except those that say why they are not run.
    fn operate(&mut self, heading: &str) {
        let blocks = blocks_under("docs/operations.md", heading);
        blocks.iter().filter(|block| block.not_run.is_none()).for_each(|block| self.play(block));
    }

    /// The current folder of the shell.
    fn place(&mut self) -> PathBuf {
        PathBuf::from(self.run("pwd"))
    }

    fn play(&mut self, block: &Block) {
        let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in block.text.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push((command, Vec::new())),
                (None, Some((_, expected))) => expected.push(line),
                (None, None) => panic!("{line:?} comes before a command"),
            }
        }
        for (command, expected) in steps {
            let command = self.filled_in(&self.own(command));
            if let Some((_, ready)) = SERVERS.iter().find(|(start, _)| command.starts_with(start)) {
                self.serve(&command, ready);
            } else if command.starts_with("ask ") {
                // A gate that has just started, or another of the fleet, may need a moment.
                eventually(&format!("{command}: {expected:?}"), || {
                    is_as_printed(&self.run(&command), &expected).then_some(())
                });
            } else {
                let printed = self.run(&command);
                assert!(is_as_printed(&printed, &expected), "{command}: {printed:?}, not {expected:?}");
            }
        }
    }

    /// Replaces the ports on the page with those of this test.
    fn own(&self, text: &str) -> String {
        // One pass over whole numbers: a port of this test may have the digits of a printed one.
        let own = |word: &str| {
            let port = self.ports.iter().find(|(printed, _)| word == *printed);
            port.map_or_else(|| word.to_owned(), |(_, port)| port.number().to_string())
        };
        let words = text.as_bytes().chunk_by(|one, other| one.is_ascii_digit() == other.is_ascii_digit());
        words.map(|word| own(std::str::from_utf8(word).unwrap())).collect()
    }

    fn filled_in(&self, command: &str) -> String {
        let found = self.values.iter().find(|(name, _)| command == format!("{name}=…"));
        found.map_or_else(|| command.to_owned(), |(name, value)| format!("{name}={value}"))
    }

    /// Starts a command that would run in another terminal.
    fn serve(&mut self, command: &str, ready: &str) {
        self.servers += 1;
        let log = self.folder.path().join(format!("terminal-{}.log", self.servers));
        self.run(&format!("{command} >{} 2>&1 </dev/null &", log.display()));
        eventually(&format!("{command} says {ready}"), || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains(ready)).then_some(())
        });
    }

    /// The output of a command that must succeed.
    fn run(&mut self, command: &str) -> String {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{command}\nprintf '\\n{END}%s\\n' $?").unwrap();
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "{command}: the shell ended\n{printed}");
            if let Some(code) = line.strip_prefix(END) {
                assert_eq!(code.trim_end(), "0", "{command}\n{printed}");
                return printed.trim_end().to_owned();
            }
            printed.push_str(&line);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in 1..=self.servers {
                let log = self.folder.path().join(format!("terminal-{number}.log"));
                eprintln!("{}:\n{}", log.display(), std::fs::read_to_string(&log).unwrap_or_default());
            }
        }
        // The shell ends at the end of its input, and what it started ends with it.
        drop(self.input.take());
        drop(self.shell.0.wait());
    }
}

/// Whether the output is as printed, where `…` stands for anything within a line. If the page shows no
/// output, any output is fine.
fn is_as_printed(printed: &str, expected: &[&str]) -> bool {
    if expected.is_empty() {
        return true;
    }
    let lines: Vec<&str> = printed.lines().collect();
    let is_like = |(line, wanted): (&&str, &&str)| match wanted.split_once('…') {
        Some((start, end)) => line.starts_with(start) && line.ends_with(end),
        None => line == wanted,
    };
    lines.len() == expected.len() && lines.iter().zip(expected).all(is_like)
}

/// Runs docs/quickstart.md, 2. In front of your API
#[test]
fn a_reader_with_an_identity_provider_gets_from_an_empty_folder_to_a_token_that_an_event_ends() {
    let issuer = Issuer {
        audience: "https://api.example.com".to_owned(),
        ..Issuer::named("https://idp.example.com/")
    };
    let mut reader = Reader::new();
    let token = issuer.token().claim("scope", "read:deals").claim("sub", "alice").build();
    reader.values = vec![("TOKEN", token), ("SUBJECT", "alice".to_owned())];
    let keys = reader.folder.path().join("keys.json");
    std::fs::write(&keys, issuer.jwks().to_string()).unwrap();
    reader.follow("2. In front of your API", &["gate.toml"], |text| {
        assert!(text.contains("discovery = true"), "{text}");
        text.replace("discovery = true", &format!("jwks_file = \"{}\"", keys.display()))
    });
}

/// Runs docs/quickstart.md, 3. With the embedded authority
#[test]
fn a_reader_without_an_identity_provider_gets_a_token_that_ends_with_a_role() {
    Reader::new().follow("3. With the embedded authority", &["gate.toml"], str::to_owned);
}

/// Runs docs/quickstart.md, 4. Three replicas on Redis
#[test]
fn a_reader_starts_three_replicas_that_share_what_was_revoked() {
    let files = ["fleet.toml", "issuing.toml", "accepting.toml"];
    Reader::new().follow("4. Three replicas on Redis", &files, str::to_owned);
}

/// Runs docs/operations.md, Find out why
/// Runs docs/operations.md: portcullis event token-revoked
/// Runs docs/operations.md: portcullis event subject-revoked
/// Runs docs/operations.md: portcullis credential secret
#[test]
fn an_operator_finds_out_why_a_token_is_denied_and_ends_what_leaked() {
    let mut reader = Reader::new();
    reader.follow("3. With the embedded authority", &["gate.toml"], str::to_owned);
    reader.run("ln -s ../terminal-2.log gate.log; CLIENT_ID=$(jq -r .client_id robot.json)");
    reader.operate("Find out why");
    reader.operate("A leaked token or secret");
    let judged =
        "echo \"$TOKEN\" | portcullis explain --config gate.toml --path /deals/7 - | grep -c revoked";
    assert_ne!(reader.run(judged), "0");
}
