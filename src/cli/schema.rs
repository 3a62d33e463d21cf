//! `portcullis schema`: the JSON Schema of the configuration, for editors and checks.

use std::io::Write as _;
use std::process::ExitCode;

use crate::config;

/// Prints the schema.
pub(super) fn schema() -> ExitCode {
    // If printing fails, only the exit code remains.
    match writeln!(std::io::stdout(), "{:#}", config::schema()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}
