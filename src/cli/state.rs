//! `portcullis state`: the store, before the gate uses it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio::runtime::Builder;

use super::{BAD, Configured};
use crate::config::{self, OnEmpty, Settings, Store as StoreSettings};
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
}

#[derive(Args)]
struct InitArgs {
    #[command(flatten)]
    configured: Configured,
    /// Accept tokens that were issued before now: nothing was revoked yet
    #[arg(long)]
    accept_existing_tokens: bool,
}

/// Runs the command.
pub(super) fn state(args: &StateArgs) -> ExitCode {
    let StateCommand::Init(args) = &args.command;
    let loaded = match config::load(&args.configured.config) {
        Ok(loaded) => loaded,
        Err(problems) => {
            drop(writeln!(std::io::stderr(), "{problems}"));
            return ExitCode::from(BAD);
        }
    };
    match init(&loaded.settings, args.accept_existing_tokens) {
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
                    "{}: another store was in use here, up to event {seen}; what it knew is not known any more",
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
