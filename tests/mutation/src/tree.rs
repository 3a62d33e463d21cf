//! A copy of the project with its mutants woven in, and what the compiler says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::mutant::Mutant;
use crate::order::SUITES;
use crate::weave::{self, Part, Woven};

/// So many times the compiler is asked for what cannot be compiled: types first, then what borrows what.
const ROUNDS: usize = 40;

/// Warnings of woven code are no faults, and a mutant that overflows does so when it is chosen.
const LINTS: &str = "\n[lints.rust]\nwarnings = \"allow\"\narithmetic_overflow = \"allow\"\nunconditional_panic = \"allow\"\n";

/// The copy that is compiled.
pub(crate) struct Tree {
    project: PathBuf,
    folder: PathBuf,
    target: PathBuf,
}

/// The mutants that cannot be woven in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// What does not compile.
    pub(crate) unviable: BTreeSet<usize>,
    /// What no switch can choose.
    pub(crate) unswitched: BTreeSet<usize>,
}

impl LeftOut {
    #[must_use]
    pub(crate) fn has(&self, number: usize) -> bool {
        self.unviable.contains(&number) || self.unswitched.contains(&number)
    }

    fn len(&self) -> usize {
        self.unviable.len() + self.unswitched.len()
    }

    fn extend(&mut self, other: Self) {
        self.unswitched.extend(other.unswitched);
        self.unviable.extend(other.unviable.difference(&self.unswitched));
    }
}

#[derive(Deserialize)]
struct Line {
    reason: String,
    message: Option<Message>,
    target: Option<Target>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    rendered: Option<String>,
    code: Option<ErrorCode>,
    spans: Vec<CodeSpan>,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: String,
}

#[derive(Deserialize)]
struct CodeSpan {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Tree {
    /// Copies what git knows of the project, as it is now, but for the files that are woven.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub(crate) fn copy(project: &Path, folder: &Path, target: &Path, mutants: &[Mutant]) -> Result<Self> {
        let woven: BTreeSet<_> =
            mutants.iter().map(|mutant| mutant.file.as_str()).chain(["src/lib.rs", "Cargo.toml"]).collect();
        let files = Command::new("git")
            .current_dir(project)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()?;
        for file in String::from_utf8(files.stdout)?.split_terminator('\0') {
            let (from, to) = (project.join(file), folder.join(file));
            if from.is_file() && !woven.contains(file) {
                fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
                let copied = fs::read(&to).ok();
                if copied.as_deref() != Some(&fs::read(&from)?) {
                    fs::copy(&from, &to).with_context(|| format!("cannot copy {file}"))?;
                }
            }
        }
        // The tools of some tests, which `tests/run` installs.
        let tools = folder.join(".cache");
        if fs::symlink_metadata(&tools).is_err() {
            std::os::unix::fs::symlink(fs::canonicalize(project.join(".cache"))?, &tools)?;
        }
        let manifest = fs::read_to_string(project.join("Cargo.toml"))?;
        write(&folder.join("Cargo.toml"), &(without_lints(&manifest) + LINTS))?;
        Ok(Self { project: project.to_owned(), folder: folder.to_owned(), target: target.to_owned() })
    }

    /// Weaves the mutants in, but for those that are left out already, and leaves out those that do not compile.
    ///
    /// # Errors
    /// When the compiler finds a fault that belongs to no mutant.
    pub(crate) fn weave(&self, mutants: &[Mutant], mut left_out: LeftOut) -> Result<LeftOut> {
        let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, mutant) in mutants.iter().enumerate() {
            files.entry(&mutant.file).or_default().push(number);
        }
        let library = fs::read_to_string(self.project.join("src/lib.rs"))?;
        write(&self.folder.join("src/lib.rs"), &(library + "\n#[doc(hidden)]\npub mod woven;\n"))?;
        write(&self.folder.join("src/woven.rs"), include_str!("woven.rs"))?;
        for round in 1..=ROUNDS {
            let mut texts = BTreeMap::new();
            for (&file, numbers) in &files {
                let source = fs::read_to_string(self.project.join(file))?;
                let some: Vec<_> = numbers
                    .iter()
                    .filter(|&&number| !left_out.has(number))
                    .map(|&number| (number, &mutants[number]))
                    .collect();
                let woven =
                    weave::weave(&source, &some).map_err(|error| anyhow!("cannot weave {file}: {error}"))?;
                left_out.unswitched.extend(&woven.left_out);
                write(&self.folder.join(file), &woven.text)?;
                texts.insert(file, woven);
            }
            let faults = self.faults(&texts)?;
            eprintln!("round {round}: {} do not compile", faults.len());
            if faults.len() == 0 {
                return Ok(left_out);
            }
            left_out.extend(faults);
        }
        bail!("after {ROUNDS} rounds the woven sources still do not compile")
    }

    /// The mutants at which the compiler finds a fault.
    fn faults(&self, texts: &BTreeMap<&str, Woven>) -> Result<LeftOut> {
        let lines = self.cargo(&["check", "--lib"])?;
        let mut faults = LeftOut::default();
        let mut others = Vec::new();
        for message in
            lines.into_iter().filter_map(|line| line.message).filter(|message| message.level == "error")
        {
            if message.spans.is_empty() {
                continue;
            }
            let is_uncovered = message.code.as_ref().is_some_and(|code| code.code == "E0004");
            let around = message.spans.iter().filter_map(|span| {
                let marks = &texts.get(span.file_name.as_str())?.marks;
                let around = marks
                    .iter()
                    .filter(|mark| mark.bytes.start <= span.byte_start && span.byte_end <= mark.bytes.end);
                around
                    .filter(|mark| (mark.part == Part::Match) == is_uncovered)
                    .min_by_key(|mark| mark.bytes.len())
            });
            let found = around.min_by_key(|mark| mark.bytes.len());
            match found {
                Some(mark) if mark.part != Part::Choice => faults.unswitched.extend(&mark.mutants),
                Some(mark) => faults.unviable.extend(&mark.mutants),
                None => others.push(message.rendered.unwrap_or_default()),
            }
        }
        if faults.len() == 0
            && let Some(other) = others.first()
        {
            bail!("the woven sources do not compile, and no mutant is to blame:\n{other}");
        }
        Ok(faults)
    }

    /// Compiles the suites, and returns the program of each.
    ///
    /// # Errors
    /// When they do not compile.
    pub(crate) fn programs(&self) -> Result<Vec<(&'static str, PathBuf)>> {
        let mut arguments = vec!["test", "--no-run", "--lib", "--bins"];
        SUITES.iter().skip(1).for_each(|suite| arguments.extend(["--test", suite]));
        let mut programs = Vec::new();
        for line in self.cargo(&arguments)? {
            let (Some(target), Some(executable), Some(profile)) =
                (line.target, line.executable, line.profile)
            else {
                continue;
            };
            let is_library = target.kind.iter().any(|kind| kind == "lib");
            let suite = SUITES
                .iter()
                .find(|suite| if is_library { **suite == "lib" } else { **suite == target.name });
            if let (true, Some(suite)) = (profile.test && line.reason == "compiler-artifact", suite) {
                programs.push((*suite, executable));
            }
        }
        if programs.len() != SUITES.len() {
            bail!("of {} suites {} were compiled", SUITES.len(), programs.len());
        }
        programs.sort_by_key(|(suite, _)| SUITES.iter().position(|known| known == suite));
        Ok(programs)
    }

    /// Where the tests run: they read files of the project.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn cargo(&self, arguments: &[&str]) -> Result<Vec<Line>> {
        let output = Command::new("cargo")
            .current_dir(&self.folder)
            .args(arguments)
            .args(["--locked", "--message-format", "json"])
            .env("CARGO_TARGET_DIR", &self.target)
            .stderr(Stdio::inherit())
            .stdin(Stdio::null())
            .output()
            .context("cannot run cargo")?;
        let text = String::from_utf8(output.stdout)?;
        text.lines()
            .map(|line| serde_json::from_str(line).context("a message of cargo cannot be read"))
            .collect()
    }
}

/// Writes a file whose text has changed: cargo compiles what is newer than its last build.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A manifest without its tables of lints.
fn without_lints(manifest: &str) -> String {
    let mut kept = String::new();
    let mut is_kept = true;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_kept = !line.starts_with("[lints") && !line.starts_with("[workspace.lints");
        }
        if is_kept {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}
