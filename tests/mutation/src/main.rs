//! Judges mutants: all are woven into one build, each behind a switch, and each meets the tests that reach it.
//!
//! usage: mutation PROJECT OUT LIST
//!
//! LIST is what `cargo mutants --list --json` prints. OUT gets the woven copy of the project, and the verdicts:
//! `caught.txt` (with the test that noticed), `missed.txt`, `unviable.txt` (does not compile), `left.txt` (in constants and among `let`
//! conditions, where no switch can be: for cargo-mutants to judge). `MUTATION_JOBS` is how many tests in one process run at once.

mod find;
mod memory;
mod mutant;
mod order;
mod suite;
mod tree;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::memory::Memory;
use crate::mutant::Mutant;
use crate::order::SuiteKind;
use crate::suite::{Ended, Suite, Test};
use crate::tree::Tree;

type Suites<'a> = BTreeMap<&'static str, Suite<'a>>;

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutation: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The number of mutants that no test noticed.
fn run() -> Result<usize> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [project, out, list] = &arguments[..] else { bail!("usage: mutation PROJECT OUT LIST") };
    let out = fs::canonicalize(out).with_context(|| format!("there is no folder {out}"))?;
    let jobs = match std::env::var("MUTATION_JOBS") {
        Ok(jobs) => jobs.parse::<NonZeroUsize>().context("MUTATION_JOBS must be a number from 1 on")?.get(),
        Err(_) => 3,
    };
    let mutants = mutant::read(&fs::read_to_string(list).with_context(|| format!("cannot read {list}"))?)?;
    let tree = Tree::copy(Path::new(project), &out.join("woven"), &out.join("target"), &mutants)?;
    let memory = Memory::open(&out, Path::new(project), &mutants)?;
    let left_out = tree.weave(&mutants, memory.left_out())?;
    memory.keep_left_out(&left_out)?;
    let programs = tree.programs()?;
    let scratch = out.join("scratch");
    fs::create_dir_all(&scratch)?;
    let suites: Suites<'_> = programs
        .iter()
        .map(|(name, program)| (*name, Suite { name, program, folder: tree.folder(), scratch: &scratch }))
        .collect();
    let woven: Vec<_> = mutants.iter().enumerate().filter(|(number, _)| !left_out.has(*number)).collect();
    for (kind, at_once) in [(SuiteKind::InProcess, jobs), (SuiteKind::Processes, jobs * 2)] {
        let open: Vec<_> = woven.iter().copied().filter(|(_, mutant)| memory.is_open(kind, mutant)).collect();
        if !open.is_empty() {
            let tests = look(kind, &suites, &memory, jobs)?;
            judge(kind, &open, &suites, &tests, &memory, at_once)?;
        }
    }
    let name = |number: &usize| mutants[*number].name.clone();
    let lines = |numbers: &BTreeSet<usize>| numbers.iter().map(name).collect::<Vec<_>>();
    write_lines(&out.join("unviable.txt"), &lines(&left_out.unviable))?;
    write_lines(&out.join("left.txt"), &lines(&left_out.unswitched))?;
    let (caught, missed) = memory.verdicts(&woven);
    write_lines(&out.join("caught.txt"), &caught)?;
    write_lines(&out.join("missed.txt"), &missed)?;
    println!(
        "{} mutants: {} caught, {} missed, {} do not compile, {} left to cargo-mutants",
        mutants.len(),
        caught.len(),
        missed.len(),
        left_out.unviable.len(),
        left_out.unswitched.len()
    );
    Ok(missed.len())
}

fn write_lines(path: &Path, lines: &[String]) -> Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs every test of a kind by itself, but for those of suites that have not changed, and notes which mutants it
/// reaches.
fn look(kind: SuiteKind, suites: &Suites<'_>, memory: &Memory, jobs: usize) -> Result<Vec<Test>> {
    let mut all = Vec::new();
    for suite in kind.suites().iter().filter_map(|name| suites.get(name)) {
        if let Some(tests) = memory.tests(suite.name) {
            all.extend(tests);
            continue;
        }
        let names = suite.names()?;
        eprintln!("{}: which mutants do its {} tests reach?", suite.name, names.len());
        let tests = Mutex::new(Vec::new());
        in_parallel(names.len(), jobs, |number| {
            match suite.look(&names[number], number)? {
                Some(test) => lock(&tests).push(test),
                None => eprintln!("{} {} fails without a mutant, and judges none", suite.name, names[number]),
            }
            Ok(())
        })?;
        let tests = tests.into_inner().unwrap_or_else(PoisonError::into_inner);
        memory.keep_tests(suite.name, &tests)?;
        all.extend(tests);
    }
    Ok(all)
}

/// Judges mutants by the tests of one kind.
fn judge(
    kind: SuiteKind,
    open: &[(usize, &Mutant)],
    suites: &Suites<'_>,
    tests: &[Test],
    memory: &Memory,
    jobs: usize,
) -> Result<()> {
    eprintln!("{} mutants meet the tests {}", open.len(), kind.name());
    in_parallel(open.len(), jobs, |index| {
        let (number, mutant) = open[index];
        let order = kind.order((number, &mutant.file), tests);
        for batch in &order {
            let Some(suite) = batch.first().and_then(|test| suites.get(test.suite.as_str())) else {
                continue;
            };
            let mut ended = suite.judge(batch, number)?;
            if kind == SuiteKind::Processes && ended != Ended::Passed {
                // On a machine that is as busy as this makes it, such a test may fail by itself: it has to fail twice.
                ended = suite.judge(batch, number)?;
            }
            let noticed = match ended {
                Ended::Passed => continue,
                Ended::Failed(test) => format!("{} {test}", suite.name),
                Ended::TimedOut => format!("{} in time: {} waited", suite.name, batch[0].name),
            };
            return memory.keep_verdict(kind, mutant, Some(&noticed));
        }
        memory.keep_verdict(kind, mutant, None)
    })
}

/// Does something for each number below `count`, several at a time. The first error ends it.
fn in_parallel(count: usize, jobs: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut number = next.fetch_add(1, Ordering::Relaxed);
        while number < count {
            work(number).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            number = next.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(200) {
                eprintln!("{number} of {count}");
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

pub(crate) fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
