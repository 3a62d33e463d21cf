//! The command line: one module per command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod check;
mod credential;
mod demo;
mod event;
mod explain;
mod explain_signal;
mod password;
mod remote;
mod run;
mod state;
mod table;
mod user;

/// Bad configuration or usage.
const BAD: u8 = 2;

/// Stands in front of an HTTP API and lets a request through only with a bearer token that is still in force.
#[derive(Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gate.
    ///
    /// Serves until SIGTERM or SIGINT, then lets requests in flight finish and exits with 0. SIGHUP, or a changed file,
    /// loads the configuration again. Exits with 2 when the configuration is bad, with 1 when the gate cannot run.
    Run(Configured),
    /// Check the configuration and show what it comes down to.
    ///
    /// Reads the file and every certificate, key and key set it names, and prints the listeners, issuers, upstreams
    /// and routes that would be in effect. When something is wrong, prints every problem with file, line and key on
    /// standard error and exits with 2.
    Check(Configured),
    /// Try everything on loopback, with nothing to set up.
    ///
    /// Runs a gate in front of a sample API, with a certificate made for the occasion and an authority with one user and one
    /// application credential, and prints the `curl` lines to try. Ends with Ctrl-C and leaves nothing behind.
    Demo(demo::DemoArgs),
    /// Send a revocation event to a running gate.
    ///
    /// Exits with 0 when the event is durable and in force, with 1 when it is not, with 2 when it makes no sense. The admin
    /// token comes from the environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file.
    Event(Box<event::EventArgs>),
    /// Manage the users of the embedded authority of a running gate.
    ///
    /// Exits with 0 when it is done, with 1 when it is not, with 2 when the arguments make no sense. The admin token comes
    /// from the environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file, and needs the permission `authority`.
    User(user::UserArgs),
    /// Manage what applications authenticate with at the embedded authority of a running gate.
    ///
    /// Exits with 0 when it is done, with 1 when it is not, with 2 when the arguments make no sense. The admin token comes
    /// from the environment variable PORTCULLIS_ADMIN_TOKEN or from --token-file, and needs the permission `authority`.
    Credential(Box<credential::CredentialArgs>),
    /// Make the store before the gate is started for the first time, or copy it while it runs.
    State(state::StateArgs),
    /// Explain the verdict on a token, check by check.
    ///
    /// Judges as the gate would, without one running: fetches the keys of the token's issuer once, and reads what was
    /// revoked and used from the configured store. Prints a line for each check with what was compared, also after the
    /// first that fails, and never the signature. Exits with 0 when the token is allowed, with 1 when it is denied, with
    /// 2 when the configuration or usage is bad.
    Explain(explain::ExplainArgs),
}

/// A command that reads the configuration.
#[derive(Args)]
struct Configured {
    /// The configuration file (TOML); config/reference.toml explains every key.
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CONFIG", default_value = "config/portcullis.toml")]
    config: PathBuf,
}

/// Parses the arguments, runs the command and tells the exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli { command: Command::Run(Configured { config }) }) => run::run(&config),
        Ok(Cli { command: Command::Check(Configured { config }) }) => check::check(&config),
        Ok(Cli { command: Command::Demo(args) }) => demo::run(&args, run::run_until),
        Ok(Cli { command: Command::Event(args) }) => event::event(&args),
        Ok(Cli { command: Command::User(args) }) => user::user(&args),
        Ok(Cli { command: Command::Credential(args) }) => credential::credential(&args),
        Ok(Cli { command: Command::State(args) }) => state::state(&args),
        Ok(Cli { command: Command::Explain(args) }) => explain::run(&args),
        Err(usage) => {
            // Help and version arrive here as well, and go to standard output. With nowhere to print, only the code is left.
            drop(usage.print());
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(BAD))
        }
    }
}
