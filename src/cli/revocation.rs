//! `portcullis revocation`: lists the events of a running gate that still end tokens, and undoes them.

use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::listing::ListLength;
use super::remote::{Failure, Remote, report};
use super::table::{cell, columns};

/// The command, and the gate to call.
#[derive(Args)]
pub(super) struct RevocationArgs {
    #[command(subcommand)]
    command: RevocationCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum RevocationCommand {
    /// List revocations in force.
    #[command(group(ArgGroup::new("whom").args(["subject", "client", "session", "jti"])))]
    List {
        /// List only those that name this subject, under any kind of name.
        #[arg(long, value_name = "S", value_parser = NonEmptyStringValueParser::new())]
        subject: Option<String>,
        /// List only those that name this client.
        #[arg(long, value_name = "C", value_parser = NonEmptyStringValueParser::new())]
        client: Option<String>,
        /// List only those that name this login session.
        #[arg(long, value_name = "SID", value_parser = NonEmptyStringValueParser::new())]
        session: Option<String>,
        /// List only those that name this token.
        #[arg(long, value_name = "J", value_parser = NonEmptyStringValueParser::new())]
        jti: Option<String>,
        /// List only those of this issuer.
        #[arg(long, value_name = "I", value_parser = NonEmptyStringValueParser::new())]
        issuer: Option<String>,
        #[command(flatten)]
        length: ListLength,
    },
    /// Undo a revocation.
    ///
    /// Tokens that no other revocation ends are accepted again. The revocation stays undone when the same event is delivered again.
    Undo {
        /// The revocation's id, as `revocation list` shows it.
        #[arg(value_name = "ID")]
        id: u64,
    },
}

/// Runs the command: returns 0 on success, 1 on failure.
pub(super) fn revocation(RevocationArgs { command, remote }: &RevocationArgs) -> ExitCode {
    report(command.run(remote))
}

impl RevocationCommand {
    fn run(&self, remote: &Remote) -> Result<String, Failure> {
        match self {
            Self::List { subject, client, session, jti, issuer, length } => {
                let filters = [
                    ("subject", subject),
                    ("client", client),
                    ("session", session),
                    ("jti", jti),
                    ("issuer", issuer),
                ];
                let revocations = length.read(remote, "/v1/revocations", &filters)?;
                Ok(remote.text(&revocations, |revocations| {
                    length.table(revocations, |items| {
                        events(items, "id", "expires_at", "no revocations are in force")
                    })
                }))
            }
            Self::Undo { id } => {
                let nothing = remote.call(Method::DELETE, &format!("/v1/revocations/{id}"), None)?;
                Ok(remote.text(&nothing, |_| format!("revocation {id} is undone")))
            }
        }
    }
}

/// Formats events as a table that begins with the member `id` and ends with the member `until`.
pub(super) fn events(items: &Value, id: &str, until: &str, none: &str) -> String {
    let Some(items) = items.as_array().filter(|items| !items.is_empty()) else { return none.to_owned() };
    let title = |member: &str| member.replace('_', " ").to_uppercase();
    let head = [
        title(id),
        "TYPE".into(),
        "NAMES".into(),
        "ISSUER".into(),
        "AT".into(),
        "SOURCE".into(),
        title(until),
    ];
    let row = |event: &Value| {
        let of = |member: &str| cell(&event[member]);
        [of(id), of("type"), names(event), of("issuer"), of("at"), of("source"), of(until)]
    };
    let rows: Vec<_> = std::iter::once(head).chain(items.iter().map(row)).collect();
    columns(&rows).trim_end().to_owned()
}

/// Describes what an event names.
fn names(event: &Value) -> String {
    let shown = |member: &str| match &event[member] {
        Value::Null => None,
        name => Some(cell(name)),
    };
    let subject = shown("subject").map(|name| match event["subject_kind"].as_str() {
        Some(kind @ ("email" | "alias")) => format!("{kind} {name}"),
        _ => name,
    });
    let session = shown("session").map(|name| format!("session {name}"));
    let version = shown("role_version").map(|version| format!("version {version}"));
    let undone = shown("undoes").map(|sequence| format!("undoes {sequence}"));
    let token = shown("jti").or_else(|| shown("token"));
    let parts = [subject, session, shown("client"), token, version, undone];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}
