//! The tests: which there are, which mutants each reaches, and whether they fail.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::order::SuiteKind;

/// So much memory a process may map: a mutant may ask for more and more.
const MAX_MEMORY_KIB: u64 = 16 << 20;

/// A fiftieth of what the suite does: fewer answer not every question that the tests insist on.
const SIMULATION_STEPS: &str = "20000";

/// So long a test may take, whatever it does.
const LONGEST: Duration = Duration::from_secs(300);

/// A test, and what one run of it without a mutant showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Test {
    pub(crate) suite: String,
    pub(crate) name: String,
    pub(crate) took: Duration,
    pub(crate) reached: BTreeSet<usize>,
}

/// A suite of tests in one program.
pub(crate) struct Suite<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a Path,
    pub(crate) folder: &'a Path,
    /// For files that are only there while a test runs.
    pub(crate) scratch: &'a Path,
}

/// How a run of some tests ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    /// With the first that failed.
    Failed(String),
    TimedOut,
}

impl Suite<'_> {
    /// The names of its tests.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let output =
            self.command().args(["--list", "--format", "terse"]).output().context("cannot list tests")?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    /// Runs one test without a mutant. None if it fails by itself.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub(crate) fn look(&self, name: &str, number: usize) -> Result<Option<Test>> {
        let file = self.scratch.join(format!("{}.{number}", self.name));
        fs::remove_file(&file).ok();
        let start = Instant::now();
        let mut command = self.command();
        command.args(["--exact", name]).env("WOVEN_REACHED", &file);
        let ended = self.run(command, LONGEST)?;
        let took = start.elapsed();
        let numbers = fs::read_to_string(&file).unwrap_or_default();
        fs::remove_file(&file).ok();
        let reached = numbers.lines().filter_map(|line| line.parse().ok()).collect();
        Ok((ended == Ended::Passed).then(|| Test {
            suite: self.name.to_owned(),
            name: name.to_owned(),
            took,
            reached,
        }))
    }

    /// Runs some tests with a mutant.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub(crate) fn judge(&self, tests: &[&Test], mutant: usize) -> Result<Ended> {
        let patience: Duration = tests.iter().map(|test| test.took).sum();
        let mut command = self.command();
        command
            .arg("--exact")
            .args(tests.iter().map(|test| &test.name))
            .env("WOVEN_CHOSEN", mutant.to_string());
        self.run(command, patience * 3 + Duration::from_secs(30))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        // A browser maps more than that by itself.
        let limit = if SuiteKind::InProcess.suites().contains(&self.name) {
            format!("ulimit -v {MAX_MEMORY_KIB}; ")
        } else {
            String::new()
        };
        let limited = format!("{limit}exec \"$@\"");
        command.args(["-c", &limited, "sh"]).arg(self.program).current_dir(self.folder);
        command.env("RUST_TEST_THREADS", "4").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        command.env("PORTCULLIS_SIMULATION_STEPS", SIMULATION_STEPS);
        command
    }

    fn run(&self, mut command: Command, patience: Duration) -> Result<Ended> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let group = format!("-{}", child.id());
        let mut stdout = child.stdout.take().context("the output is a pipe")?;
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            stdout.read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        let (ended, waiting) = mpsc::sync_channel(1);
        thread::spawn(move || ended.send(child.wait()));
        let status = waiting.recv_timeout(patience);
        // Also servers that a failed test left behind, which hold the other end of the pipe.
        Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status().ok();
        let Ok(status) = status else { return Ok(Ended::TimedOut) };
        let text = reader.join().unwrap_or_default();
        if status?.success() {
            return Ok(Ended::Passed);
        }
        let failed = text.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        Ok(Ended::Failed(failed.unwrap_or("the whole run").to_owned()))
    }
}
