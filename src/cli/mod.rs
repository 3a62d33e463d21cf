//! The command line: one module per command.

use std::process::ExitCode;

/// Parses the arguments, runs the command and tells the exit code.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(2)
}
