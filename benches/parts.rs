//! The instructions of each part of the path of one request: `cargo bench --bench parts --features parts`.
//!
//! Counted by callgrind, so that two runs agree however busy the machine is; microseconds would not. The bench runs
//! itself under `valgrind`, which counts inside [`counted`] and writes a file each time that function returns. This needs
//! no crate, no runner of a matching version and no macro around the parts, which are plain closures (`benches/parts`).
//!
//! Counts cover user space and only this process: they exclude the kernel and waiting for memory. Arguments select the
//! parts whose names contain one of them; `--json` prints an object.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is what it is for")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use portcullis::parts::{Part, all};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Calls before the measurement, which fill caches and one-time state.
const BEFORE: usize = 80;
/// Calls that are counted.
const CALLS: u64 = 500;
/// Set for the process under valgrind.
const UNDER_VALGRIND: &str = "PORTCULLIS_PARTS_COUNTED";

fn main() -> ExitCode {
    if env::var_os(UNDER_VALGRIND).is_some() {
        for mut part in all() {
            (0..BEFORE).for_each(|_| (part.call)());
            counted(&mut part);
        }
        return ExitCode::SUCCESS;
    }
    let names: Vec<String> = all().into_iter().map(|part| part.name).collect();
    match count(&names) {
        Ok(counts) => {
            show(&names, &counts);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// The function that callgrind measures, and finds by this name.
#[inline(never)]
fn counted(part: &mut Part) {
    for _ in 0..CALLS {
        (part.call)();
    }
}

/// Returns the instructions of all calls of each part, in order.
fn count(names: &[String]) -> Result<Vec<u64>, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for the counts: {error}"))?;
    let this = env::current_exe().map_err(|error| format!("this program cannot be run again: {error}"))?;
    let out = folder.path().join("counts");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=parts::counted"])
        // The full name: with a pattern, this option of valgrind 3.19 does nothing.
        .args(["--dump-after=parts::counted", &format!("--callgrind-out-file={}", out.display())])
        .arg(this)
        .env(UNDER_VALGRIND, "1")
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}): install the package valgrind"))?;
    if !ran.status.success() {
        return Err(format!("under valgrind: {}\n{}", ran.status, String::from_utf8_lossy(&ran.stderr)));
    }
    // Each dump has a number; the last file, without one, contains what came after all parts.
    let total = |number: usize| total(&out.with_extension(number.to_string()));
    let counts: Option<Vec<u64>> = (1..=names.len()).map(total).collect();
    counts.ok_or_else(|| format!("callgrind wrote fewer than {} counts", names.len()))
}

fn total(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")))?;
    line.split_whitespace().next()?.parse().ok()
}

fn show(names: &[String], counts: &[u64]) {
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let nothing = counts.first().copied().unwrap_or_default();
    let per_call = |count: &u64| (count.saturating_sub(nothing) + CALLS / 2) / CALLS;
    let rows = names.iter().zip(counts.iter().map(per_call)).skip(1);
    let rows: Vec<_> =
        rows.filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part))).collect();
    if env::args().any(|argument| argument == "--json") {
        let rows: BTreeMap<_, _> = rows.into_iter().collect();
        println!("{}", serde_json::to_string_pretty(&rows).unwrap_or_default());
        return;
    }
    for (name, count) in rows {
        println!("{count:>9}  {name}");
    }
}
