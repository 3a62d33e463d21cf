//! `portcullis event`: sends an event that ends tokens to a running gate, or lists the events that it received.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value};

use super::BAD;
use super::listing::ListLength;
use super::remote::{Failure, Remote, report};
use super::revocation;
use crate::events::parse::parse_time;

/// An event and the gate to send it to; or the list of events.
#[derive(Args)]
#[command(subcommand_negates_reqs = true)]
pub(super) struct EventArgs {
    /// What happened.
    #[arg(value_name = "TYPE", required = true)]
    kind: Option<EventArgument>,
    /// The subject whose tokens end, for role-changed and subject-revoked; for session-revoked, end only this subject's tokens.
    #[arg(long, value_name = "S")]
    subject: Option<String>,
    /// Which claim the subject is compared with: subject, email or alias.
    #[arg(long, value_name = "K", requires = "subject", value_parser = ["subject", "email", "alias"])]
    subject_kind: Option<String>,
    /// The login session whose tokens end, for session-revoked.
    #[arg(long, value_name = "SID")]
    session: Option<String>,
    /// The token that ends, for token-revoked.
    #[arg(long, value_name = "J")]
    jti: Option<String>,
    /// The client whose tokens end, for client-revoked.
    #[arg(long, value_name = "C")]
    client: Option<String>,
    /// The issuer of the tokens; may be omitted when the gate has exactly one.
    #[arg(long, value_name = "I")]
    issuer: Option<String>,
    /// When it happened, in RFC 3339 or seconds since 1970; now, if omitted.
    #[arg(long, value_name = "T", value_parser = time)]
    at: Option<String>,
    /// The version of the subject's roles from now on, for role-changed.
    #[arg(long, value_name = "N")]
    role_version: Option<u64>,
    #[command(subcommand)]
    command: Option<EventCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum EventCommand {
    /// List the events that the gate received, in order, undone ones included.
    List(ListLength),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventArgument {
    /// The subject's roles changed: tokens issued until then end.
    RoleChanged,
    /// The subject's tokens issued until then end.
    SubjectRevoked,
    /// One token ends.
    TokenRevoked,
    /// The login session's tokens issued until then end.
    SessionRevoked,
    /// The client's tokens issued until then end.
    ClientRevoked,
    /// Every token of the issuer issued until then ends.
    IssuerRevoked,
}

impl EventArgument {
    /// The type's name in the admin API.
    const fn word(self) -> &'static str {
        match self {
            Self::RoleChanged => "role-changed",
            Self::SubjectRevoked => "subject-revoked",
            Self::TokenRevoked => "token-revoked",
            Self::SessionRevoked => "session-revoked",
            Self::ClientRevoked => "client-revoked",
            Self::IssuerRevoked => "issuer-revoked",
        }
    }

    /// The argument that it requires.
    const fn needs(self) -> Option<&'static str> {
        match self {
            Self::RoleChanged | Self::SubjectRevoked => Some("subject"),
            Self::TokenRevoked => Some("jti"),
            Self::SessionRevoked => Some("session"),
            Self::ClientRevoked => Some("client"),
            Self::IssuerRevoked => None,
        }
    }

    /// Whether it also accepts this argument.
    fn takes(self, name: &str) -> bool {
        (self, name) == (Self::SessionRevoked, "subject")
    }
}

/// Checks a time, which is passed on to the gate unchanged.
pub(super) fn time(text: &str) -> Result<String, &'static str> {
    parse_time(text).map(|_| text.to_owned()).ok_or("must be in RFC 3339 or seconds since 1970")
}

/// Runs the command: returns 0 when the event is in force or the list was read, 1 when not, 2 when the
/// arguments are invalid.
pub(super) fn event(args: &EventArgs) -> ExitCode {
    let outcome = match (&args.command, args.kind) {
        (Some(EventCommand::List(length)), None) if args.names_nothing() => args.list(length),
        (None, Some(kind)) => match args.document(kind) {
            Ok(event) => args.send(kind, &event),
            Err(usage) => return refuse(&usage),
        },
        _ => {
            return refuse(
                "`event list` takes neither a TYPE nor the options of an event: either send an event, or list events",
            );
        }
    };
    report(outcome)
}

fn refuse(usage: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "{usage}"));
    ExitCode::from(BAD)
}

impl EventArgs {
    fn send(&self, kind: EventArgument, event: &Value) -> Result<String, Failure> {
        let (answer, kind) = (self.remote.call(Method::POST, "/v1/events", Some(event))?, kind.word());
        let in_force = |answer: &Value| format!("{kind} is in force (sequence {})", answer["sequence"]);
        Ok(self.remote.text(&answer, in_force))
    }

    /// Whether no option of an event was given.
    fn names_nothing(&self) -> bool {
        let Self { subject, subject_kind, session, jti, client, issuer, at, role_version, .. } = self;
        let texts = [subject, subject_kind, session, jti, client, issuer, at];
        texts.iter().all(|text| text.is_none()) && role_version.is_none()
    }

    fn list(&self, length: &ListLength) -> Result<String, Failure> {
        let events = length.read(&self.remote, "/v1/events", &[])?;
        Ok(self.remote.text(&events, |events| {
            length.table(events, |items| {
                revocation::events(items, "sequence", "received_at", "no events are stored")
            })
        }))
    }

    /// The event in the format of the admin API, or which argument is missing or superfluous.
    fn document(&self, kind_argument: EventArgument) -> Result<Value, String> {
        let kind = kind_argument.word();
        let named = [
            ("subject", &self.subject),
            ("session", &self.session),
            ("jti", &self.jti),
            ("client", &self.client),
        ];
        let mut members = Map::from_iter([("type".to_owned(), Value::from(kind))]);
        for (name, value) in named {
            match value {
                Some(_) if kind_argument.needs() != Some(name) && !kind_argument.takes(name) => {
                    return Err(format!("--{name} does not apply to {kind}"));
                }
                None if kind_argument.needs() == Some(name) => {
                    return Err(format!("{kind} requires --{name}"));
                }
                Some(value) => drop(members.insert(name.to_owned(), value.as_str().into())),
                None => {}
            }
        }
        if self.role_version.is_some() && kind_argument != EventArgument::RoleChanged {
            return Err(format!("--role-version does not apply to {kind}"));
        }
        let more = [("issuer", &self.issuer), ("at", &self.at), ("subject_kind", &self.subject_kind)];
        for (name, value) in more {
            if let Some(value) = value {
                members.insert(name.to_owned(), value.as_str().into());
            }
        }
        if let Some(version) = self.role_version {
            members.insert("role_version".to_owned(), version.into());
        }
        Ok(Value::Object(members))
    }
}
