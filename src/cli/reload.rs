//! `portcullis reload`: makes a running gate reload its configuration, and shows what is wrong with it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::json;

use super::remote::{Failure, Remote, report};

/// The gate to reload.
#[derive(Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    remote: Remote,
}

/// Runs the command: returns 0 when the new configuration is in force, 1 when it is not.
pub(super) fn reload(ReloadArgs { remote }: &ReloadArgs) -> ExitCode {
    let outcome = remote.call(Method::POST, "/v1/reload", None);
    if let (Err(Failure::Problems(_, problems)), true) = (&outcome, remote.is_json()) {
        let document = json!({ "reloaded": false, "problems": problems });
        // If printing fails, the exit code still tells the result.
        drop(writeln!(std::io::stdout(), "{document}"));
    }
    report(
        outcome
            .map(|done| remote.text(&done, |_| "the configuration was reloaded and is in force".to_owned())),
    )
}
