//! `portcullis run`: the gate, until a signal ends it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::BAD;
use crate::{app, config};

/// Runs the gate with this configuration: 0 after a drain, 1 when it cannot run, 2 when the configuration is bad.
pub(super) fn run(path: &Path) -> ExitCode {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            // With nowhere to print, the exit code still tells.
            drop(writeln!(std::io::stderr(), "{problems}"));
            return ExitCode::from(BAD);
        }
    };
    match app::run(path, &loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}
