//! `portcullis session`: lists the tokens in use at a running gate, and ends them. Knows the calls, but not
//! what makes a token idle.

use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::listing::ListLength;
use super::remote::{Failure, Remote, encoded, query, report};
use super::table::documents;

/// The command, and the gate to call.
#[derive(Args)]
pub(super) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum SessionCommand {
    /// List tokens in use.
    ///
    /// Of gates that share a store, each lists the tokens in use on itself.
    List {
        /// List only tokens of this subject.
        #[arg(long, value_name = "S", value_parser = NonEmptyStringValueParser::new())]
        subject: Option<String>,
        /// List only tokens of this client.
        #[arg(long, value_name = "C", value_parser = NonEmptyStringValueParser::new())]
        client: Option<String>,
        /// List only tokens of this issuer.
        #[arg(long, value_name = "I", value_parser = NonEmptyStringValueParser::new())]
        issuer: Option<String>,
        #[command(flatten)]
        length: ListLength,
    },
    /// Revoke one token in use, or all tokens of a subject in use.
    ///
    /// Of gates that share a store, this finds only tokens in use on the gate that is called. To end all tokens of a subject on
    /// every gate, send `portcullis event subject-revoked --subject S`.
    #[command(group(ArgGroup::new("whose").required(true).args(["token", "subject"])))]
    End {
        /// The token as `session list` shows it, or its first 12 digits or more, as log lines have them.
        #[arg(value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
        token: Option<String>,
        /// Revoke every token in use of this subject.
        #[arg(long, value_name = "S", value_parser = NonEmptyStringValueParser::new())]
        subject: Option<String>,
        /// The issuer of the subject's tokens; may be omitted when the gate has exactly one.
        #[arg(long, value_name = "I", conflicts_with = "token", value_parser = NonEmptyStringValueParser::new())]
        issuer: Option<String>,
    },
}

/// Runs the command: returns 0 on success, 1 on failure.
pub(super) fn session(SessionArgs { command, remote }: &SessionArgs) -> ExitCode {
    report(command.run(remote))
}

impl SessionCommand {
    fn run(&self, remote: &Remote) -> Result<String, Failure> {
        match self {
            Self::List { subject, client, issuer, length } => {
                let filters = [("subject", subject), ("client", client), ("issuer", issuer)];
                let sessions = length.read(remote, "/v1/sessions", &filters)?;
                Ok(remote.text(&sessions, |sessions| length.table(sessions, table)))
            }
            Self::End { token: Some(token), .. } => {
                let endpoint = format!("/v1/sessions/{}", encoded(token));
                let nothing = remote.call(Method::DELETE, &endpoint, None)?;
                Ok(remote.text(&nothing, |_| format!("{token} is revoked")))
            }
            Self::End { subject, issuer, token: None } => {
                let endpoint = query("/v1/sessions", &[("subject", subject), ("issuer", issuer)]);
                let nothing = remote.call(Method::DELETE, &endpoint, None)?;
                let subject = subject.as_deref().unwrap_or_default();
                Ok(remote
                    .text(&nothing, |_| format!("the tokens of {subject} in use on this gate are revoked")))
            }
        }
    }
}

fn table(sessions: &Value) -> String {
    documents(sessions, ["token", "issuer", "client", "first_used_at", "last_used_at", "expires_at"])
        .unwrap_or_else(|| "no tokens in use".to_owned())
}
