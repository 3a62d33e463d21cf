//! The command line: one module per command, and those that several share (`remote`, `listing`, `table`).

use std::any::TypeId;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod check;
mod credential;
mod demo;
mod event;
mod explain;
mod explain_signal;
mod generate;
mod listing;
mod password;
mod probe;
mod reload;
mod remote;
mod revocation;
mod run;
mod schema;
mod session;
mod state;
mod table;
mod transfer;
mod usage;
mod user;

/// The exit code for invalid configuration or usage.
const BAD: u8 = 2;

/// Stands in front of an HTTP API and lets a request through only with a bearer token that is still in force.
#[derive(Parser)]
#[command(name = "portcullis", version = env!("PORTCULLIS_VERSION"), arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gate.
    ///
    /// Serves until SIGTERM or SIGINT, then lets requests in flight finish and exits with 0. SIGHUP, or a changed file,
    /// reloads the configuration. Exits with 2 when the configuration is bad, with 1 when the gate cannot run.
    Run(Configured),
    /// Check the configuration and show its effect.
    ///
    /// Reads the file and every certificate, key and key set it names, and prints the listeners, issuers, upstreams
    /// and routes that would be in effect. If anything is wrong, prints every problem with file, line and key on
    /// standard error and exits with 2.
    Check(Configured),
    /// Try everything on loopback, without any setup.
    ///
    /// Runs a gate in front of a sample API, with a temporary certificate and an authority with one user and one
    /// application credential, and prints the `curl` lines to try. Ctrl-C ends it and removes everything it made.
    Demo(demo::DemoArgs),
    /// Send a revocation event to a running gate, or list the events it received.
    ///
    /// Exits with 0 when the event is durable and in force, with 1 when it is not, with 2 when the arguments make no sense.
    /// The admin token comes from the environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file, and needs the
    /// permission `events`.
    Event(Box<event::EventArgs>),
    /// List and undo the revocations in force at a running gate.
    ///
    /// Exits with 0 on success, with 1 on failure, with 2 when the arguments make no sense. The admin token comes from the
    /// environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file, and needs the permission `events`.
    Revocation(Box<revocation::RevocationArgs>),
    /// List and revoke the tokens in use at a running gate.
    ///
    /// Exits with 0 on success, with 1 on failure, with 2 when the arguments make no sense. The admin token comes from the
    /// environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file, and needs the permission `sessions`.
    Session(Box<session::SessionArgs>),
    /// Show which clients called which routes of a running gate.
    ///
    /// Counts forwarded requests by client, route and status. Exits with 0 on success, with 1 on failure, with 2 when the
    /// arguments make no sense. The admin token comes from the environment variable PORTCULLIS_ADMIN_TOKEN or from
    /// --token-file, and needs the permission `sessions`.
    Usage(Box<usage::UsageArgs>),
    /// Reload the configuration of a running gate.
    ///
    /// Exits with 0 when the new configuration is in force. When it is bad, prints every problem, exits with 1, and the
    /// gate keeps the previous one. The admin token comes from the environment variable PORTCULLIS_ADMIN_TOKEN or from
    /// --token-file, and needs the permission `config`.
    Reload(reload::ReloadArgs),
    /// Manage the users of the embedded authority of a running gate.
    ///
    /// Exits with 0 on success, with 1 on failure, with 2 when the arguments make no sense. The admin token comes
    /// from the environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file, and needs the permission `authority`.
    User(user::UserArgs),
    /// Manage the credentials of applications at the embedded authority of a running gate.
    ///
    /// Exits with 0 on success, with 1 on failure, with 2 when the arguments make no sense. The admin token comes
    /// from the environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file, and needs the permission `authority`.
    Credential(Box<credential::CredentialArgs>),
    /// Create, back up or move the state store.
    State(state::StateArgs),
    /// Ask a gate whether it is live or ready, for container probes.
    ///
    /// Needs neither the configuration nor a token. Exits with 0 when the gate says yes, with 1 when it says no or does not
    /// respond; `ready` then prints the components that are not ready. Exits with 2 when the arguments make no sense.
    Probe(probe::ProbeArgs),
    /// Print the JSON Schema of the configuration file.
    ///
    /// It describes every key with its type, default and meaning (JSON Schema 2020-12). Editors complete and check a TOML file
    /// whose first line is `#:schema PATH`, where PATH names a file with this output.
    Schema,
    /// Explain the verdict on a token, check by check.
    ///
    /// Judges as the gate would, without one running: fetches the keys of the token's issuer once, and reads revocations and
    /// last uses from the configured store. Prints one line per check with what was compared, including those after the
    /// first that fails, and never the signature. Exits with 0 when the token is allowed, with 1 when it is denied, with
    /// 2 when the configuration or usage is bad.
    Explain(explain::ExplainArgs),
    /// Print the completion script for a shell.
    ///
    /// For bash: `source <(portcullis completions bash)`, or write it to
    /// ~/.local/share/bash-completion/completions/portcullis. For zsh: write it to a file named `_portcullis` in a folder of
    /// $fpath. For fish: write it to ~/.config/fish/completions/portcullis.fish.
    Completions(generate::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands.
    Man(generate::ManArgs),
}

impl Cli {
    /// Parses the arguments; the first is the name of the program.
    fn read(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut definition = with_hyphens(Self::command());
        let mut matches = definition.try_get_matches_from_mut(arguments)?;
        values_are_there(&mut definition, &matches)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut definition))
    }
}

/// Lets the value of an option begin with `-` if it is free text: identifiers often come from elsewhere, and every 64th
/// `jti` in base64url begins so.
fn with_hyphens(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| {
            let is_free = is_free_text(&argument);
            argument.allow_hyphen_values(is_free)
        })
        .mut_subcommands(with_hyphens)
}

fn is_free_text(argument: &clap::Arg) -> bool {
    !argument.is_positional() && argument.get_value_parser().type_id() == TypeId::of::<String>()
}

/// Checks that no option of free text has another option in place of its value, which was forgotten.
fn values_are_there(command: &mut clap::Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let known: Vec<String> =
        command.get_arguments().filter_map(clap::Arg::get_long).map(|name| format!("--{name}")).collect();
    let forgotten = command.get_arguments().filter(|argument| is_free_text(argument)).find_map(|argument| {
        let values = matches.try_get_raw(argument.get_id().as_str()).ok()??;
        let option = known.iter().find(|name| values.clone().any(|value| value == name.as_str()))?;
        Some(format!("a value is required for '{argument}': '{option}' is an option"))
    });
    if let Some(problem) = forgotten {
        return Err(command.error(ErrorKind::InvalidValue, problem));
    }
    match matches.subcommand() {
        Some((name, matches)) => {
            command.find_subcommand_mut(name).map_or(Ok(()), |command| values_are_there(command, matches))
        }
        None => Ok(()),
    }
}

/// The configuration of a command that reads it.
#[derive(Args)]
struct Configured {
    /// The configuration file (TOML); config/reference.toml explains every key.
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CONFIG", default_value = "config/portcullis.toml")]
    config: PathBuf,
}

/// Prints a warning on standard error about a success that may not be what the user intended.
fn warn(warning: impl Display) {
    drop(writeln!(std::io::stderr(), "warning: {warning}"));
}

/// Parses the arguments, runs the command and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let command = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(usage) => {
            // Help and version also arrive here and go to standard output. If printing fails, the exit code remains.
            drop(usage.print());
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(BAD));
        }
    };
    match command {
        Command::Run(Configured { config }) => run::run(&config),
        Command::Check(Configured { config }) => check::check(&config),
        Command::Demo(args) => demo::run(&args, run::run_until),
        Command::Event(args) => event::event(&args),
        Command::Revocation(args) => revocation::revocation(&args),
        Command::Session(args) => session::session(&args),
        Command::Usage(args) => usage::usage(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::User(args) => user::user(&args),
        Command::Credential(args) => credential::credential(&args),
        Command::State(args) => state::state(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Schema => schema::schema(),
        Command::Explain(args) => explain::run(&args),
        Command::Completions(args) => generate::completions(&args, Cli::command()),
        Command::Man(args) => generate::man(&args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries each option that takes free text. Returns how many there are.
    fn try_options(command: &clap::Command, path: &[&str]) -> usize {
        let options = command.get_opts().filter(|option| {
            option.get_action().takes_values()
                && option.get_value_parser().type_id() == TypeId::of::<String>()
        });
        let tried = options.map(|option| {
            let name = format!("--{}", option.get_long().unwrap());
            let line = path.iter().copied().chain([&*name, "-1_aB"]).map(OsString::from);
            let outcome = Cli::read(line).map(|_cli| ()).map_err(|error| error.kind());
            assert_ne!(outcome, Err(ErrorKind::UnknownArgument), "{path:?} {name}");
        });
        let below = |command: &clap::Command| try_options(command, &[path, &[command.get_name()]].concat());
        tried.count() + command.get_subcommands().map(below).sum::<usize>()
    }

    #[test]
    fn free_text_of_an_option_may_begin_with_a_hyphen() {
        assert!(try_options(&Cli::command(), &["portcullis"]) > 20);
    }

    #[test]
    fn an_option_in_place_of_a_forgotten_value_is_an_error() {
        let read = |line: &str| Cli::read(line.split(' ').map(OsString::from)).map(|_cli| ());
        for line in ["--jti --json", "--jti=--json", "--jti -j --issuer --jti"] {
            let error = read(&format!("portcullis event token-revoked {line}")).unwrap_err().to_string();
            assert!(error.contains("a value is required for '--"), "{line}: {error}");
            assert!(error.contains("Usage: portcullis event"), "{line}: {error}");
        }
        read("portcullis event token-revoked --jti --jsonic --json").unwrap();
    }
}
