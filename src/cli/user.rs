//! `portcullis user`: manages the users of a running gate's authority, their roles and passwords.

use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::password::PasswordSource;
use super::remote::{Failure, Remote, encoded, report};
use super::table::{cell, details, documents};

/// The command, and the gate to call.
#[derive(Args)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Create a user.
    Create {
        /// The user's id: `sub` in tokens issued on its behalf. It never changes.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// The user's display name; the id, if omitted.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// A role that the user holds; repeat it, or separate roles with commas.
        #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
        roles: Vec<String>,
    },
    /// List all users.
    List,
    /// Show a user.
    Show {
        /// The user's id.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
    /// Replace the roles of a user.
    ///
    /// If they change, every token issued on the user's behalf ends, and new ones carry no role that the user has lost. Its
    /// credentials do not receive roles that the user gains.
    #[command(group(ArgGroup::new("wanted").required(true).args(["roles", "none"])))]
    Roles {
        /// The user's id.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// A role that the user holds from now on; repeat it, or separate roles with commas.
        #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
        roles: Vec<String>,
        /// The user holds no role from now on.
        #[arg(long)]
        none: bool,
    },
    /// Set the password with which a user signs in to the console.
    ///
    /// Asks for it twice at the terminal, without showing it. A password has 8 to 1,024 bytes, with no rules about characters:
    /// length makes it strong. It is never an argument: every user of the machine can read those. The user's applications and
    /// their tokens are not affected.
    Password {
        /// The user's id.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// Read the password from standard input, as one line, instead of asking for it.
        #[arg(long)]
        stdin: bool,
        /// Remove the password: the user can no longer sign in.
        #[arg(long, conflicts_with = "stdin")]
        remove: bool,
    },
    /// Delete a user with its credentials, and end every token issued on its behalf.
    Delete {
        /// The user's id.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
}

/// Runs the command: returns 0 on success, 1 on failure.
pub(super) fn user(UserArgs { command, remote }: &UserArgs) -> ExitCode {
    report(command.run(remote))
}

impl UserCommand {
    fn run(&self, remote: &Remote) -> Result<String, Failure> {
        match self {
            Self::Create { id, name, roles } => {
                let mut user = json!({ "id": id, "roles": roles });
                if let Some(name) = name {
                    user["name"] = name.as_str().into();
                }
                let created = remote.call(Method::POST, "/v1/users", Some(&user))?;
                Ok(remote.text(&created, |user| {
                    format!("{} is created, with the roles: {}", cell(&user["id"]), cell(&user["roles"]))
                }))
            }
            Self::List => {
                let users = remote.list("/v1/users")?;
                Ok(remote.text(&users, |users| table(&users["items"])))
            }
            Self::Show { id } => {
                let user = remote.call(Method::GET, &path(id), None)?;
                let members = ["id", "name", "roles", "role_version", "created_at", "has_password"];
                Ok(remote.text(&user, |user| details(user, &members)))
            }
            Self::Roles { id, roles, none: _ } => {
                let roles = json!({ "roles": roles });
                let user = remote.call(Method::PUT, &format!("{}/roles", path(id)), Some(&roles))?;
                Ok(remote.text(&user, |user| {
                    let (roles, version) = (cell(&user["roles"]), cell(&user["role_version"]));
                    format!("{id} holds the roles: {roles}\nTokens of versions before {version} are refused.")
                }))
            }
            Self::Password { id, stdin, remove } => password(remote, id, *stdin, *remove),
            Self::Delete { id } => {
                let nothing = remote.call(Method::DELETE, &path(id), None)?;
                Ok(remote.text(&nothing, |_| format!("{id} is deleted, with its credentials and tokens")))
            }
        }
    }
}

fn password(remote: &Remote, id: &str, stdin: bool, remove: bool) -> Result<String, Failure> {
    let place = format!("{}/password", path(id));
    if remove {
        let nothing = remote.call(Method::DELETE, &place, None)?;
        return Ok(remote.text(&nothing, |_| format!("{id} has no password and cannot sign in")));
    }
    let source = if stdin { PasswordSource::StandardInput } else { PasswordSource::Terminal };
    if source == PasswordSource::Terminal {
        // Checked before a password is typed twice: the user may not exist.
        remote.call(Method::GET, &path(id), None)?;
    }
    let new = source.read(id)?;
    let nothing = remote.call(Method::PUT, &place, Some(&json!({ "password": *new })))?;
    Ok(remote.text(&nothing, |_| format!("{id} has a new password")))
}

fn path(id: &str) -> String {
    format!("/v1/users/{}", encoded(id))
}

fn table(users: &Value) -> String {
    documents(users, ["id", "name", "roles", "role_version", "created_at", "has_password"])
        .unwrap_or_else(|| "there are no users".to_owned())
}
