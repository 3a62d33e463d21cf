//! What earlier runs found, as long as it still holds: what a test reaches while neither it nor the product has
//! changed, and that a test notices a mutant while the file of the mutant is the same.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::lock;
use crate::mutant::Mutant;
use crate::order::{SUITES, SuiteKind};
use crate::suite::Test;
use crate::tree::LeftOut;

/// What the tests of several suites are made of.
const SHARED: [&str; 3] = ["tests/testkit/src", "tests/properties", "tests/data"];

pub(crate) struct Memory {
    out: PathBuf,
    /// The hash of the product without its tests.
    product: u64,
    /// What each suite depends on, by its name, and of each file of the product.
    hashes: HashMap<String, u64>,
    files: HashMap<String, u64>,
    verdicts: Mutex<HashMap<String, Verdict>>,
    journal: Mutex<fs::File>,
}

/// What could not be woven into the product, whose hash this is.
#[derive(Serialize, Deserialize)]
struct Kept {
    hash: u64,
    left_out: LeftOut,
}

#[derive(Serialize, Deserialize)]
struct Tests {
    hash: u64,
    tests: Vec<Test>,
}

/// What the tests said of a mutant.
#[derive(Serialize, Deserialize)]
struct Verdict {
    mutant: String,
    /// Of the file of the mutant.
    file: u64,
    noticed: Option<String>,
    /// Of the tests that did not notice.
    missed_by: BTreeMap<String, u64>,
}

impl Memory {
    /// Reads what is kept in a folder, for the sources of a project as they are.
    ///
    /// # Errors
    /// When the sources cannot be read.
    pub(crate) fn open(out: &Path, project: &Path, mutants: &[Mutant]) -> Result<Self> {
        let mut files = HashMap::new();
        for folder in ["src"].iter().chain(&SHARED) {
            read(&project.join(folder), project, &mut files)?;
        }
        for suite in &SUITES[1..] {
            read(&project.join("tests").join(suite), project, &mut files)?;
        }
        let is_in = |name: &str, folder: &str| Path::new(name).starts_with(folder);
        let is_unit_test = |name: &str| name.ends_with("/tests.rs") || name.contains("/tests/");
        let is_product = |name: &str| is_in(name, "src") && !is_unit_test(name);
        let is_shared = |name: &str| SHARED.iter().any(|folder| is_in(name, folder));
        let product = hash(&files, mutants, &is_product);
        let of_suite = |suite: &str| {
            if suite == "lib" {
                return hash(&files, mutants, &|name| is_in(name, "src") || is_shared(name));
            }
            let own = format!("tests/{suite}");
            hash(&files, mutants, &|name| is_product(name) || is_in(name, &own) || is_shared(name))
        };
        let hashes = SUITES.iter().map(|suite| ((*suite).to_owned(), of_suite(suite))).collect();
        let path = out.join("verdicts.jsonl");
        let mut verdicts = HashMap::new();
        for line in fs::read_to_string(&path).unwrap_or_default().lines() {
            // The last line may have been cut off.
            if let Ok(verdict) = serde_json::from_str::<Verdict>(line) {
                verdicts.insert(verdict.mutant.clone(), verdict);
            }
        }
        let journal =
            fs::OpenOptions::new().append(true).create(true).open(path).context("cannot write verdicts")?;
        Ok(Self {
            out: out.to_owned(),
            product,
            hashes,
            files,
            verdicts: Mutex::new(verdicts),
            journal: Mutex::new(journal),
        })
    }

    /// What could not be woven into this product.
    #[must_use]
    pub(crate) fn left_out(&self) -> LeftOut {
        let text = fs::read_to_string(self.out.join("left_out.json")).unwrap_or_default();
        let kept = serde_json::from_str::<Kept>(&text).ok().filter(|kept| kept.hash == self.product);
        kept.map(|kept| kept.left_out).unwrap_or_default()
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn keep_left_out(&self, left_out: &LeftOut) -> Result<()> {
        let kept = Kept { hash: self.product, left_out: left_out.clone() };
        fs::write(self.out.join("left_out.json"), serde_json::to_vec(&kept)?)
            .context("cannot write what was left out")
    }

    /// The tests of a suite that has not changed since it was looked at.
    #[must_use]
    pub(crate) fn tests(&self, suite: &str) -> Option<Vec<Test>> {
        let file = fs::File::open(self.reached(suite)).ok()?;
        let kept: Tests = serde_json::from_reader(std::io::BufReader::new(file)).ok()?;
        (Some(&kept.hash) == self.hashes.get(suite)).then_some(kept.tests)
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn keep_tests(&self, suite: &str, tests: &[Test]) -> Result<()> {
        let kept = Tests { hash: self.hash(suite), tests: tests.to_vec() };
        fs::write(self.reached(suite), serde_json::to_vec(&kept)?).context("cannot write what tests reach")
    }

    /// False if a test is known to notice a mutant, or if the tests of a kind are known not to.
    #[must_use]
    pub(crate) fn is_open(&self, kind: SuiteKind, mutant: &Mutant) -> bool {
        lock(&self.verdicts).get(&mutant.name).is_none_or(|verdict| {
            let is_same = verdict.file == self.file(mutant);
            let is_missed =
                kind.suites().iter().all(|suite| verdict.missed_by.get(*suite) == self.hashes.get(*suite));
            !(is_same && (verdict.noticed.is_some() || is_missed))
        })
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn keep_verdict(&self, kind: SuiteKind, mutant: &Mutant, noticed: Option<&str>) -> Result<()> {
        let file = self.file(mutant);
        let mut verdicts = lock(&self.verdicts);
        let before = verdicts.remove(&mutant.name).filter(|before| before.file == file);
        let mut verdict = Verdict {
            mutant: mutant.name.clone(),
            file,
            noticed: noticed.map(str::to_owned),
            missed_by: before.map(|before| before.missed_by).unwrap_or_default(),
        };
        if noticed.is_none() {
            verdict
                .missed_by
                .extend(kind.suites().iter().map(|suite| ((*suite).to_owned(), self.hash(suite))));
        }
        let line = serde_json::to_string(&verdict)? + "\n";
        lock(&self.journal).write_all(line.as_bytes()).context("cannot write a verdict")?;
        verdicts.insert(mutant.name.clone(), verdict);
        Ok(())
    }

    /// Those of some mutants that a test notices, with the test, and those that none does.
    #[must_use]
    pub(crate) fn verdicts(&self, of: &[(usize, &Mutant)]) -> (Vec<String>, Vec<String>) {
        let verdicts = lock(&self.verdicts);
        let (mut caught, mut missed) = (Vec::new(), Vec::new());
        for (_, mutant) in of {
            match verdicts.get(&mutant.name).and_then(|verdict| verdict.noticed.as_ref()) {
                Some(test) => caught.push(format!("{}: {test}", mutant.name)),
                None => missed.push(mutant.name.clone()),
            }
        }
        (caught, missed)
    }

    fn reached(&self, suite: &str) -> PathBuf {
        self.out.join(format!("reached.{suite}.json"))
    }

    fn hash(&self, suite: &str) -> u64 {
        self.hashes.get(suite).copied().unwrap_or_default()
    }

    fn file(&self, mutant: &Mutant) -> u64 {
        self.files.get(&mutant.file).copied().unwrap_or_default()
    }
}

/// One hash for some of the files, and for the numbers that mutants are known by.
fn hash(files: &HashMap<String, u64>, mutants: &[Mutant], is_chosen: &dyn Fn(&str) -> bool) -> u64 {
    let mut chosen: Vec<_> = files.iter().filter(|(name, _)| is_chosen(name)).collect();
    chosen.sort();
    let mut hasher = DefaultHasher::new();
    chosen.hash(&mut hasher);
    mutants.iter().for_each(|mutant| mutant.name.hash(&mut hasher));
    hasher.finish()
}

/// The hash of every file in a folder, by its path in the project.
fn read(folder: &Path, project: &Path, hashes: &mut HashMap<String, u64>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, project, hashes)?;
            continue;
        }
        let mut hasher = DefaultHasher::new();
        fs::read(&path)?.hash(&mut hasher);
        let name = path.strip_prefix(project)?.to_string_lossy().into_owned();
        hashes.insert(name, hasher.finish());
    }
    Ok(())
}
