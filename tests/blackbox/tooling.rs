//! The tools around a gate: container probes, shell completions, manual pages, the version.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use testkit::gate::{Gate, binary, portcullis, run_to_end};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::root;

/// The commands that `--help` lists below this one.
pub fn subcommands(path: &[&str]) -> Vec<String> {
    let help = portcullis(&[path, &["--help"]].concat()).out;
    let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.trim().is_empty());
    let names =
        lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn a_probe_says_whether_a_gate_lives_and_is_ready() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&upstream.url(), &issuer));
    let url = format!("http://{}", gate.telemetry);
    for (question, text) in [("live", "live\n"), ("ready", "ready\n")] {
        let outcome = portcullis(&["probe", question, "--telemetry", &url]);
        assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, text, ""), "{outcome:?}");
        let told = run_to_end(
            Command::new(binary()).args(["probe", question]).env("PORTCULLIS_TELEMETRY_URL", &url),
        );
        assert_eq!(told.code, 0, "{told:?}");
    }
    let outcome = portcullis(&["probe", "ready", "--telemetry", &url, "--json"]);
    let document: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((outcome.code, &document["ready"]), (0, &json!(true)), "{document}");
}

#[test]
fn a_probe_fails_when_a_gate_is_not_ready_silent_absent_or_something_else() {
    let upstream = RawUpstream::start();
    let keys = "[[issuers]]\nissuer = \"https://idp.test/\"\naudiences = [\"a\"]\njwks_url = \"http://127.0.0.1:9/keys\"\n";
    let gate =
        Gate::launch(&Settings::plaintext().upstream("api", &upstream.url(), "").route("/", "").toml(keys));
    let url = format!("http://{}", gate.telemetry);
    let outcome = portcullis(&["probe", "ready", "--telemetry", &url]);
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{outcome:?}");
    assert!(outcome.err.starts_with("not ready\nkeys:https://idp.test/ "), "{outcome:?}");
    assert!(!outcome.err.contains("state"), "only what is not ready: {outcome:?}");
    assert_eq!(portcullis(&["probe", "live", "--telemetry", &url]).code, 0);

    let other = upstream.url();
    for question in ["live", "ready"] {
        for (url, code, text) in [
            ("http://127.0.0.1:9", 1, "cannot connect"),
            (&other, 1, "is not a telemetry listener"),
            ("localhost", 2, "--telemetry localhost"),
            ("http://127.0.0.1:1/?a", 2, "query"),
        ] {
            let outcome = portcullis(&["probe", question, "--telemetry", url, "--timeout", "1"]);
            assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{url}: {outcome:?}");
            assert!(outcome.err.contains(text), "{url}: {outcome:?}");
        }
    }
    // It accepts connections and never responds.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let outcome = portcullis(&["probe", "live", "--telemetry", &silent, "--timeout", "1"]);
    assert!(outcome.code == 1 && outcome.err.contains("did not respond within 1 s"), "{outcome:?}");
    assert_eq!(portcullis(&["probe", "well"]).code, 2);
}

#[test]
fn completions_are_accepted_by_the_shells_that_are_installed() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, syntax) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let outcome = portcullis(&["completions", shell]);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{shell}");
        for command in subcommands(&[]) {
            assert!(outcome.out.contains(&command), "{command} for {shell}");
        }
        let path = folder.path().join(shell);
        std::fs::write(&path, &outcome.out).unwrap();
        let checked = Command::new(shell).arg(syntax).arg(&path).stdin(Stdio::null()).output();
        match checked {
            Ok(checked) => assert!(checked.status.success(), "{shell}: {checked:?}"),
            Err(error) => assert!(shell != "bash", "bash is installed wherever the tests run: {error}"),
        }
    }
    let script = "source <(portcullis completions bash); COMP_WORDS=(portcullis sess); COMP_CWORD=1; \
                  _portcullis portcullis sess portcullis; echo \"${COMPREPLY[*]}\"";
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let completed = Command::new("bash").args(["-c", script]).env("PATH", path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "session", "{completed:?}");
    assert_eq!(portcullis(&["completions", "csh"]).code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let page = portcullis(&["man"]);
    assert_eq!((page.code, page.err.as_str()), (0, ""));
    assert!(page.out.contains(".TH portcullis 1"), "{}", page.out);
    let mut expected = BTreeSet::from(["portcullis.1".to_owned()]);
    for command in subcommands(&[]) {
        expected.insert(format!("portcullis-{command}.1"));
        let below = subcommands(&[&command]);
        expected.extend(below.iter().map(|below| format!("portcullis-{command}-{below}.1")));
    }
    assert!(expected.contains("portcullis-session-end.1") && expected.len() > 20, "{expected:?}");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("man1");
    let made = portcullis(&["man", "--dir", folder.to_str().unwrap(), "--json"]);
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    let told: Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!(told["pages"].as_array().unwrap().len(), expected.len());
    let found: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
    for name in &found {
        let page = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(page.contains(".TH portcullis") && page.contains(".SH SYNOPSIS"), "{name}: {page}");
    }
    let outcome = portcullis(&["man", "--dir", "/dev/null/pages"]);
    assert!(outcome.code == 1 && outcome.err.contains("/dev/null/pages"), "{outcome:?}");
}

#[test]
fn the_version_is_what_the_build_script_found() {
    // The same run of the script built the binary and this test, so a commit made since is in neither.
    assert_eq!(portcullis(&["--version"]).out, format!("portcullis {}\n", env!("PORTCULLIS_VERSION")));
}

/// A package with the build script of the product and a program that prints what the script found, in a folder of its own where
/// nobody else commits.
struct Versioned(tempfile::TempDir);

impl Versioned {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = std::fs::read_to_string(root().join("build.rs")).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        for (file, text) in [
            ("build.rs", script.as_str()),
            ("src/main.rs", "fn main() { print!(\"{}\", env!(\"PORTCULLIS_VERSION\")); }"),
            (
                "Cargo.toml",
                "[package]\nname = \"versioned\"\nversion = \"1.2.3\"\nedition = \"2024\"\n[workspace]\n",
            ),
            (".gitignore", "/target\n"),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        Self(folder)
    }

    /// The version of the program as it is built now, in this folder.
    fn version(&self, folder: &Path, told: Option<&str>) -> String {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--offline"]).current_dir(folder);
        cargo.env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", self.0.path().join("target"));
        match told {
            Some(commit) => cargo.env("PORTCULLIS_COMMIT", commit),
            None => cargo.env_remove("PORTCULLIS_COMMIT"),
        };
        let built = run_to_end(&mut cargo);
        assert_eq!(built.code, 0, "{built:?}");
        built.out
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args([
            "-c",
            "user.name=tests",
            "-c",
            "user.email=tests@example.com",
            "-c",
            "commit.gpgsign=false",
        ]);
        let done = run_to_end(git.args(arguments).current_dir(self.0.path()));
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done.out
    }

    fn commit(&self) -> String {
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "A change"]);
        self.git(&["rev-parse", "HEAD"])[..12].to_owned()
    }
}

#[test]
fn the_build_script_names_the_commit_that_is_checked_out_at_each_build() {
    let archive = Versioned::new();
    assert_eq!(archive.version(archive.0.path(), None), "1.2.3", "a source archive has no commit");
    let package = Versioned::new();
    let here = package.0.path();
    package.git(&["init", "--quiet", "--initial-branch", "main"]);
    package.git(&["add", "."]);
    for _ in 0..2 {
        let commit = package.commit();
        assert_eq!(package.version(here, None), format!("1.2.3 ({commit})"));
    }
    package.git(&["pack-refs", "--all"]);
    let packed = package.git(&["rev-parse", "HEAD"])[..12].to_owned();
    assert_eq!(package.version(here, None), format!("1.2.3 ({packed})"));
    let after = package.commit();
    assert_ne!(after, packed);
    assert_eq!(package.version(here, None), format!("1.2.3 ({after})"), "a branch that was packed");
    package.git(&["worktree", "add", "--quiet", "-b", "other", "linked", "HEAD~1"]);
    let linked = here.join("linked");
    assert_eq!(package.version(&linked, None), format!("1.2.3 ({packed})"));
    package.git(&["-C", "linked", "checkout", "--quiet", "--detach", "main"]);
    assert_eq!(package.version(&linked, None), format!("1.2.3 ({after})"));
    let told = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(package.version(here, Some(told)), "1.2.3 (0123456789ab)");
    assert_eq!(package.version(here, Some("")), format!("1.2.3 ({after})"));
}
