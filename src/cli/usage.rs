//! `portcullis usage`: lists which client called which route, how often and when last, as counted by a running gate.

use std::process::ExitCode;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::Value;

use super::listing::ListLength;
use super::remote::{Failure, Remote, report};
use super::table::documents;

/// The client to show, and the gate that counted its usage.
#[derive(Args)]
pub(super) struct UsageArgs {
    /// Show only the usage of this client.
    #[arg(long, value_name = "C", value_parser = NonEmptyStringValueParser::new())]
    client: Option<String>,
    #[command(flatten)]
    length: ListLength,
    #[command(flatten)]
    remote: Remote,
}

/// Runs the command: returns 0 on success, 1 on failure.
pub(super) fn usage(args: &UsageArgs) -> ExitCode {
    report(args.run())
}

impl UsageArgs {
    fn run(&self) -> Result<String, Failure> {
        let Self { client, length, remote } = self;
        let usage = length.read(remote, "/v1/usage", &[("client", client)])?;
        Ok(remote.text(&usage, |usage| {
            let shown = length.table(usage, table);
            usage["note"].as_str().map_or_else(|| shown.clone(), |note| format!("{shown}\nNote: {note}."))
        }))
    }
}

fn table(usage: &Value) -> String {
    documents(usage, ["client", "route", "status", "count", "last_used_at"])
        .unwrap_or_else(|| "no requests were counted".to_owned())
}
