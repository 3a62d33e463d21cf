//! `portcullis run`: runs the gate until a signal ends it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use tokio::sync::oneshot;

use super::BAD;
use crate::app::{self, RunError};

/// Runs the gate with this configuration: returns 0 after a drain, 1 when it cannot run, 2 when the
/// configuration is invalid.
pub(super) fn run(path: &Path) -> ExitCode {
    serve(path, std::future::pending())
}

/// Like [`run`], but also stops when a message arrives.
pub(super) fn run_until(path: &Path, stop: oneshot::Receiver<()>) -> ExitCode {
    serve(path, async {
        // Dropping the sender ends it as well.
        let _ = stop.await;
    })
}

fn serve(path: &Path, stop: impl Future<Output = ()>) -> ExitCode {
    let Err(error) = app::run(path, stop) else { return ExitCode::SUCCESS };
    // If printing fails, the exit code still tells the result.
    drop(writeln!(std::io::stderr(), "{error}"));
    match error {
        RunError::Configuration(_) => ExitCode::from(BAD),
        _ => ExitCode::FAILURE,
    }
}
