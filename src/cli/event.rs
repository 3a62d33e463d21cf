//! `portcullis event`: tells a running gate what ends tokens.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Map, Value};

use super::BAD;
use super::remote::{Failure, Remote, report};
use crate::events::parse::parse_time;

/// An event, and the gate it goes to.
#[derive(Args)]
pub(super) struct EventArgs {
    /// What happened.
    #[arg(value_name = "TYPE")]
    kind: EventArgument,
    /// Whose tokens end, for role-changed and subject-revoked; for session-revoked, only that subject's.
    #[arg(long, value_name = "S")]
    subject: Option<String>,
    /// Which claim the subject is compared with: subject, email or alias.
    #[arg(long, value_name = "K", requires = "subject", value_parser = ["subject", "email", "alias"])]
    subject_kind: Option<String>,
    /// Which login session's tokens end, for session-revoked.
    #[arg(long, value_name = "X")]
    session: Option<String>,
    /// Which token ends, for token-revoked.
    #[arg(long, value_name = "J")]
    jti: Option<String>,
    /// Which client's tokens end, for client-revoked.
    #[arg(long, value_name = "C")]
    client: Option<String>,
    /// The issuer of the tokens; may be left out when the gate has exactly one.
    #[arg(long, value_name = "I")]
    issuer: Option<String>,
    /// When it happened, in RFC 3339 or seconds since 1970; now, if left out.
    #[arg(long, value_name = "T", value_parser = time)]
    at: Option<String>,
    /// The version of the subject's roles from now on, for role-changed.
    #[arg(long, value_name = "N")]
    role_version: Option<u64>,
    #[command(flatten)]
    remote: Remote,
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

    /// The argument it cannot do without.
    const fn needs(self) -> Option<&'static str> {
        match self {
            Self::RoleChanged | Self::SubjectRevoked => Some("subject"),
            Self::TokenRevoked => Some("jti"),
            Self::SessionRevoked => Some("session"),
            Self::ClientRevoked => Some("client"),
            Self::IssuerRevoked => None,
        }
    }

    /// Whether it may have this argument as well.
    fn takes(self, name: &str) -> bool {
        (self, name) == (Self::SessionRevoked, "subject")
    }
}

/// A time as an argument, which the gate reads as it is written.
pub(super) fn time(text: &str) -> Result<String, &'static str> {
    parse_time(text).map(|_| text.to_owned()).ok_or("is neither RFC 3339 nor seconds since 1970")
}

/// Sends the event: 0 when it is in force, 1 when it is not, 2 when it makes no sense.
pub(super) fn event(args: &EventArgs) -> ExitCode {
    match args.document() {
        Ok(event) => report(args.send(&event)),
        Err(usage) => {
            drop(writeln!(std::io::stderr(), "{usage}"));
            ExitCode::from(BAD)
        }
    }
}

impl EventArgs {
    fn send(&self, event: &Value) -> Result<String, Failure> {
        let (answer, kind) = (self.remote.call(Method::POST, "/v1/events", Some(event))?, self.kind.word());
        let in_force = |answer: &Value| format!("{kind} is in force (sequence {})", answer["sequence"]);
        Ok(self.remote.text(&answer, in_force))
    }

    /// The event as the gate takes it, or what is missing or too much.
    fn document(&self) -> Result<Value, String> {
        let kind = self.kind.word();
        let named = [
            ("subject", &self.subject),
            ("session", &self.session),
            ("jti", &self.jti),
            ("client", &self.client),
        ];
        let mut members = Map::from_iter([("type".to_owned(), Value::from(kind))]);
        for (name, value) in named {
            match value {
                Some(_) if self.kind.needs() != Some(name) && !self.kind.takes(name) => {
                    return Err(format!("--{name} has no meaning for {kind}"));
                }
                None if self.kind.needs() == Some(name) => return Err(format!("{kind} needs --{name}")),
                Some(value) => drop(members.insert(name.to_owned(), value.as_str().into())),
                None => {}
            }
        }
        if self.role_version.is_some() && self.kind != EventArgument::RoleChanged {
            return Err(format!("--role-version has no meaning for {kind}"));
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
