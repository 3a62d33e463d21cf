//! `portcullis state`: creates, copies and moves the state store that the configuration names.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::{BAD, Configured, transfer};
use crate::config::{self, OnEmpty, Problems, Settings, StoreSettings};
use crate::state::{Past, Store, redis};
use crate::time::Now;

/// The command for the store.
#[derive(Args)]
pub(super) struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Subcommand)]
enum StateCommand {
    /// Create the empty store that the configuration names.
    ///
    /// A gate that finds no store creates one and refuses every token issued before: revocations of them may have been
    /// lost. At the first roll-out nothing was revoked yet, and with --accept-existing-tokens nobody has to log in again.
    /// Exits with 0 when the store was created, with 1 when there is one already or it cannot be created, with 2 when the
    /// configuration is bad.
    Init(InitArgs),
    /// Copy the state file of a gate, which may be running.
    ///
    /// The copy is consistent and complete, unlike a copy of the file alone: the latest writes are in a log beside it.
    /// When users and credentials of the authority are in a file of their own, --authority copies that one. Exits with 0 when
    /// the copy is on disk, with 1 when it could not be made, with 2 when the configuration is bad.
    Backup(BackupArgs),
    /// Write the state to a file, to move it to another store.
    ///
    /// The file must not exist yet. With `-` the state goes to standard output, and the result to standard error. It holds
    /// events, last uses, idle timeouts, usage, SCIM directories and the time before which tokens are refused, as lines of JSON;
    /// no keys, and nothing of the authority. A running gate may use the store meanwhile, but only an export of a stopped one is
    /// complete. An export from Redis has no last uses: tokens in use may have to be obtained again. Exits with 0 when the file
    /// is complete, with 1 when not, with 2 when the configuration is bad.
    Export(TransferArgs),
    /// Add the state in an exported file to the store that the configuration names.
    ///
    /// Creates the store if it does not exist. What the store has already stays; revocations of both are in force. A SCIM directory
    /// from an earlier export of the same store is brought up to date, unless it has changed since. Running the import again
    /// changes nothing, and completes one that was interrupted; until then no gate starts on a store that it creates. Exits with
    /// 0 when all of the file is in the store, with 1 when not, with 2 when the configuration is bad.
    Import(TransferArgs),
}

/// The options that all of them share.
#[derive(Args)]
struct StateOptions {
    #[command(flatten)]
    configured: Configured,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct InitArgs {
    #[command(flatten)]
    options: StateOptions,
    /// Accept tokens that were issued before now: none was revoked yet.
    #[arg(long)]
    accept_existing_tokens: bool,
}

#[derive(Args)]
struct BackupArgs {
    #[command(flatten)]
    options: StateOptions,
    /// Copy the file of the authority (authority.path) instead.
    #[arg(long)]
    authority: bool,
    /// The copy, which must not exist yet.
    path: PathBuf,
}

#[derive(Args)]
struct TransferArgs {
    #[command(flatten)]
    options: StateOptions,
    /// The exported file; `-` is standard output or standard input.
    #[arg(value_name = "PATH|-")]
    path: PathBuf,
}

/// The result of a command, for people and for programs.
pub(super) struct StateDone {
    pub(super) text: String,
    pub(super) document: Value,
}

impl StateOptions {
    /// Loads the configuration and runs `act` with its settings, or returns its problems.
    fn load<T>(&self, act: impl FnOnce(&Settings) -> T) -> Result<T, Problems> {
        config::load(&self.configured.config).map(|loaded| act(&loaded.settings))
    }
}

/// Runs the command.
pub(super) fn state(args: &StateArgs) -> ExitCode {
    let to_standard_output =
        matches!(&args.command, StateCommand::Export(args) if args.path.as_os_str() == "-");
    let (outcome, StateOptions { json, .. }) = match &args.command {
        StateCommand::Init(InitArgs { options, accept_existing_tokens }) => {
            (options.load(|settings| init(settings, *accept_existing_tokens)), options)
        }
        // A backup job does not have the gate's secrets in its environment.
        StateCommand::Backup(BackupArgs { options, authority, path }) => (
            config::load_to_judge(&options.configured.config, &[])
                .map(|settings| back_up(&settings, *authority, path)),
            options,
        ),
        StateCommand::Export(TransferArgs { options, path }) => {
            (options.load(|settings| transfer::export(settings, path)), options)
        }
        StateCommand::Import(TransferArgs { options, path }) => {
            (options.load(|settings| transfer::import(settings, path)), options)
        }
    };
    let (code, text) = match outcome {
        Err(problems) => (ExitCode::from(BAD), Err(problems.to_string())),
        Ok(Err(problem)) => (ExitCode::FAILURE, Err(problem)),
        Ok(Ok(done)) => (ExitCode::SUCCESS, Ok(if *json { done.document.to_string() } else { done.text })),
    };
    // If printing fails, the exit code still tells the result.
    drop(match text {
        Ok(text) if !to_standard_output => writeln!(std::io::stdout(), "{text}"),
        Ok(text) | Err(text) => writeln!(std::io::stderr(), "{text}"),
    });
    code
}

/// Copies a file of the gate, and reports the content of the copy.
fn back_up(settings: &Settings, authority: bool, to: &Path) -> Result<StateDone, String> {
    let state = match &settings.state.store {
        StoreSettings::Embedded(path) => Ok(path.as_path()),
        StoreSettings::Memory => Err("state.store is \"memory\": there is no file to copy"),
        StoreSettings::Redis(_) => Err("state.store is \"redis\": copy it with the tools of Redis"),
    };
    let apart = settings.authority.as_ref().map(|authority| authority.path.as_path());
    let apart = apart.filter(|path| state != Ok(path));
    let (path, advice) = match (authority, apart) {
        (true, Some(path)) => (path, ""),
        (true, None) if settings.authority.is_none() => {
            return Err("there is no [authority] in the configuration".into());
        }
        (true, None) => (state?, ""),
        (false, Some(_)) => {
            (state?, "; users, credentials and signing keys are in another file: --authority")
        }
        (false, None) => (state?, ""),
    };
    let last = Store::back_up(path, to).map_err(|error| error.to_string())?;
    Ok(StateDone {
        text: format!("{}: a copy of {}, up to event {last}{advice}", to.display(), path.display()),
        document: json!({ "copy": to, "of": path, "sequence": last }),
    })
}

/// Creates the store, and reports how tokens issued before are treated.
fn init(settings: &Settings, accept_existing_tokens: bool) -> Result<StateDone, String> {
    let state = &settings.state;
    let store = match &state.store {
        StoreSettings::Memory => {
            return Err(
                "state.store is \"memory\": it is empty at every start, and there is nothing to create"
                    .into(),
            );
        }
        StoreSettings::Embedded(path) => {
            let past = Store::create(path, Now::read(), accept_existing_tokens);
            if let Past::Replaced { seen } = past.map_err(|error| error.to_string())? {
                drop(writeln!(
                    std::io::stderr(),
                    "{}: another store was in use here, up to event {seen}; its events are no longer known",
                    path.display()
                ));
            }
            path.display().to_string()
        }
        StoreSettings::Redis(redis) => {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let created = runtime.block_on(redis::create(redis, accept_existing_tokens));
            created.map_err(|error| error.to_string())?;
            format!("state.url, below {:?}", redis.key_prefix)
        }
    };
    let older = match (accept_existing_tokens, state.on_empty) {
        (true, _) => "tokens issued before now are accepted",
        (false, OnEmpty::Trust) => {
            "tokens issued before now are accepted, because state.on_empty is \"trust\""
        }
        (false, OnEmpty::Refuse) => "tokens issued before now are refused",
    };
    Ok(StateDone {
        text: format!("{store}: created an empty store; {older}"),
        document: json!({ "store": store, "accepts_existing_tokens": accept_existing_tokens || state.on_empty == OnEmpty::Trust }),
    })
}
