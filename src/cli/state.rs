//! `portcullis state`: the store, before the gate uses it and while it does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio::runtime::Builder;

use super::{BAD, Configured};
use crate::config::{self, OnEmpty, Settings, StoreSettings};
use crate::state::{Past, Store, redis};
use crate::time::Now;

/// What is done with the store.
#[derive(Args)]
pub(super) struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Subcommand)]
enum StateCommand {
    /// Make the empty store that the configuration names.
    ///
    /// A gate that finds no store makes one, and refuses every token that was issued before: what revoked it may have been
    /// lost. At the first roll-out nothing was, and with --accept-existing-tokens nobody has to log in again. Exits with 0
    /// when the store was made, with 1 when there is one already or it cannot be made, with 2 when the configuration is bad.
    Init(InitArgs),
    /// Copy the state file of a gate, which may be running.
    ///
    /// The copy is consistent and whole, which a copy of the file alone is not: what was written last is in a log beside it.
    /// When users and credentials of the authority are in a file of their own, --authority copies that one. Exits with 0 when
    /// the copy is on the disk, with 1 when it could not be made, with 2 when the configuration is bad.
    Backup(BackupArgs),
}

#[derive(Args)]
struct InitArgs {
    #[command(flatten)]
    configured: Configured,
    /// Accept tokens that were issued before now: nothing was revoked yet
    #[arg(long)]
    accept_existing_tokens: bool,
}

#[derive(Args)]
struct BackupArgs {
    #[command(flatten)]
    configured: Configured,
    /// Copy the file of the authority (authority.path) instead
    #[arg(long)]
    authority: bool,
    /// The copy, which must not exist yet
    path: PathBuf,
}

/// Runs the command.
pub(super) fn state(args: &StateArgs) -> ExitCode {
    let outcome = match &args.command {
        StateCommand::Init(args) => config::load(&args.configured.config)
            .map(|loaded| init(&loaded.settings, args.accept_existing_tokens)),
        // A job that makes copies has none of the gate's secrets in its environment.
        StateCommand::Backup(args) => config::load_to_judge(&args.configured.config, &[])
            .map(|settings| back_up(&settings, args.authority, &args.path)),
    };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(problems) => {
            drop(writeln!(std::io::stderr(), "{problems}"));
            return ExitCode::from(BAD);
        }
    };
    match outcome {
        Ok(done) => {
            drop(writeln!(std::io::stdout(), "{done}"));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            drop(writeln!(std::io::stderr(), "{problem}"));
            ExitCode::FAILURE
        }
    }
}

/// Copies a file of the gate, and says what is in the copy.
fn back_up(settings: &Settings, authority: bool, to: &Path) -> Result<String, String> {
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
    Ok(format!("{}: a copy of {}, up to event {last}{advice}", to.display(), path.display()))
}

/// Makes the store, and says what it means for the tokens of today.
fn init(settings: &Settings, accept_existing_tokens: bool) -> Result<String, String> {
    let state = &settings.state;
    let store = match &state.store {
        StoreSettings::Memory => {
            return Err(
                "state.store is \"memory\": it is empty at every start, and there is nothing to make".into(),
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
    Ok(format!("{store}: an empty store was made; {older}"))
}
