//! `portcullis credential`: manages the credentials of applications at a running gate's authority.

use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::event::time;
use super::remote::{Failure, Remote, encoded, report};
use super::table::{details, documents};
use super::warn;
use crate::time::parse_duration;

/// The command, and the gate to call.
#[derive(Args)]
pub(super) struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum CredentialCommand {
    /// Create a credential and show its secret, which is never shown again.
    ///
    /// Without --role and --scope its tokens pass only the routes that require neither; a warning says so.
    Create(New),
    /// List all credentials, or those of one user.
    List {
        /// List only those of this user.
        #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
        owner: Option<String>,
    },
    /// Show a credential. Its secret is not stored, and cannot be shown.
    Show(CredentialName),
    /// Change a credential's name or expiry.
    ///
    /// If a live token could outlive the new expiry, the credential's tokens end at once.
    Edit(CredentialChanges),
    /// Make a new secret and show it; it is never shown again.
    ///
    /// The previous secret stops working at once, or after --overlap. Tokens stay valid unless --end-tokens is given.
    Secret {
        #[command(flatten)]
        chosen: CredentialName,
        /// How long the previous secret stays valid, such as 1h (units: ms, s, m, h, d).
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
        overlap: String,
        /// End the credential's live tokens too.
        #[arg(long)]
        end_tokens: bool,
    },
    /// Delete a credential and end its tokens.
    Delete(CredentialName),
}

#[derive(Args)]
struct New {
    /// Its display name, such as "Invoice robot".
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The id of the user on whose behalf it acts.
    #[arg(long, value_name = "USER")]
    owner: String,
    /// A role of the owner that its tokens may carry; repeat it, or separate roles with commas.
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,
    /// A scope that its tokens may carry; repeat it, or separate scopes with commas.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<String>,
    /// The tenant it belongs to.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// When it expires, in RFC 3339 or seconds since 1970; never, if omitted.
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires_at: Option<String>,
}

#[derive(Args)]
struct CredentialName {
    /// The credential's client id.
    #[arg(value_name = "CLIENT_ID", value_parser = NonEmptyStringValueParser::new())]
    client_id: String,
    /// Only if it belongs to this user; otherwise it is treated as if it did not exist.
    #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    owner: Option<String>,
}

#[derive(Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args(["name", "expires_at", "no_expiry"])))]
struct CredentialChanges {
    #[command(flatten)]
    chosen: CredentialName,
    /// Its new display name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// When it expires, in RFC 3339 or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires_at: Option<String>,
    /// It never expires.
    #[arg(long, conflicts_with = "expires_at")]
    no_expiry: bool,
}

fn duration(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

/// Runs the command: returns 0 on success, 1 on failure.
pub(super) fn credential(CredentialArgs { command, remote }: &CredentialArgs) -> ExitCode {
    report(command.run(remote))
}

impl CredentialCommand {
    fn run(&self, remote: &Remote) -> Result<String, Failure> {
        match self {
            Self::Create(new) => {
                let made = remote.call(Method::POST, "/v1/credentials", Some(&new.document()))?;
                if new.roles.is_empty() && new.scopes.is_empty() {
                    warn(carries_nothing(&made));
                }
                Ok(remote.text(&made, secret))
            }
            Self::List { owner } => {
                let credentials = remote.list(&owned("/v1/credentials", owner.as_deref()))?;
                Ok(remote.text(&credentials, |credentials| table(&credentials["items"], owner.as_deref())))
            }
            Self::Show(chosen) => {
                let credential = remote.call(Method::GET, &chosen.path(""), None)?;
                Ok(remote.text(&credential, shown))
            }
            Self::Edit(changes) => {
                let (path, changes) = (changes.chosen.path(""), changes.document());
                let credential = remote.call(Method::PATCH, &path, Some(&changes))?;
                Ok(remote.text(&credential, shown))
            }
            Self::Secret { chosen, overlap, end_tokens } => {
                let turn = json!({ "overlap": overlap, "end_tokens": end_tokens });
                let made = remote.call(Method::POST, &chosen.path("/secret"), Some(&turn))?;
                Ok(remote.text(&made, secret))
            }
            Self::Delete(chosen) => {
                let nothing = remote.call(Method::DELETE, &chosen.path(""), None)?;
                Ok(remote.text(&nothing, |_| format!("{} is deleted, with its tokens", chosen.client_id)))
            }
        }
    }
}

impl CredentialName {
    fn path(&self, below: &str) -> String {
        owned(&format!("/v1/credentials/{}{below}", encoded(&self.client_id)), self.owner.as_deref())
    }
}

impl New {
    fn document(&self) -> Value {
        let Self { name, owner, roles, scopes, tenant, expires_at } = self;
        json!({
            "name": name, "owner": owner, "roles": roles, "scopes": scopes, "tenant": tenant,
            "expires_at": expires_at,
        })
    }
}

impl CredentialChanges {
    /// The members to change; absent members stay as they are.
    fn document(&self) -> Value {
        let mut members = Map::new();
        if let Some(name) = &self.name {
            members.insert("name".to_owned(), name.as_str().into());
        }
        if self.no_expiry || self.expires_at.is_some() {
            members.insert("expires_at".to_owned(), self.expires_at.as_deref().into());
        }
        Value::Object(members)
    }
}

fn owned(path: &str, owner: Option<&str>) -> String {
    owner.map_or_else(|| path.to_owned(), |owner| format!("{path}?owner={}", encoded(owner)))
}

fn shown(credential: &Value) -> String {
    let mut members =
        vec!["client_id", "name", "owner", "roles", "scopes", "tenant", "expires_at", "created_at"];
    // Present only while the previous secret is valid.
    members.extend(credential.get("old_secret_expires_at").map(|_| "old_secret_expires_at"));
    details(credential, &members)
}

fn secret(made: &Value) -> String {
    let both = details(made, &["client_id", "client_secret"]);
    format!("{both}\nThe secret is never shown again: store it where only the application can read it.")
}

/// The warning about a credential without roles and scopes, which cannot be added later.
fn carries_nothing(made: &Value) -> String {
    let client_id = made["client_id"].as_str().unwrap_or_default();
    format!(
        "credential {client_id}: its tokens carry no roles and no scopes, so routes that require roles or scopes reject them with 403; delete it, and create one with --role or --scope"
    )
}

fn table(credentials: &Value, owner: Option<&str>) -> String {
    let members = ["client_id", "name", "owner", "roles", "scopes", "tenant", "expires_at"];
    documents(credentials, members).unwrap_or_else(|| match owner {
        Some(owner) => format!("{owner} has no credentials"),
        None => "there are no credentials".to_owned(),
    })
}
