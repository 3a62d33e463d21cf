//! `portcullis schema`: the JSON Schema of the configuration, for editors and checks.

use std::io::Write as _;
use std::process::ExitCode;

use crate::config;

/// Prints the schema.
pub(super) fn schema() -> ExitCode {
    // With nowhere to print, only the exit code is left.
    match writeln!(std::io::stdout(), "{:#}", config::schema()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}
