//! `portcullis state export` and `state import`: opens the files and streams for moving state to another store.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::state::StateDone;
use crate::config::{Settings, StoreSettings};
use crate::state::transfer::{
    ExportedStore, ImportingStore, StateCopy, TransferHeader, export as write, import as add,
};
use crate::time::Timestamp;

const MEMORY: &str = "state.store is \"memory\": nothing is stored that could be moved";

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| format!("cannot start: {error}"))
}

fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes the configured store to a file that does not exist yet, or to standard output.
pub(super) fn export(settings: &Settings, to: &Path) -> Result<StateDone, String> {
    let from = match &settings.state.store {
        StoreSettings::Memory => return Err(MEMORY.to_owned()),
        StoreSettings::Embedded(path) => ExportedStore::Embedded(path),
        StoreSettings::Redis(redis) => {
            let directories = settings.scim.iter().map(|scim| scim.name.as_str()).collect();
            ExportedStore::Redis(redis, settings.terms(), directories)
        }
    };
    let header =
        if is_stream(to) { export_to(from, &mut io::stdout().lock()) } else { export_file(from, to) }?;
    let note = if header.in_use {
        "; a gate uses the store: for a complete export, stop it and export again"
    } else {
        ""
    };
    Ok(StateDone {
        text: format!(
            "{}: the state of the {} store up to event {}{note}",
            to.display(),
            header.store,
            header.sequence
        ),
        document: json!({ "file": to, "store": header.store, "sequence": header.sequence, "complete": !header.in_use }),
    })
}

fn export_to(from: ExportedStore<'_>, out: &mut dyn io::Write) -> Result<TransferHeader, String> {
    let mut out = BufWriter::new(out);
    runtime()?.block_on(write(from, &mut out)).map_err(|error| error.to_string())
}

/// Writes to a temporary name first, so that an incomplete export never has the file's name.
fn export_file(from: ExportedStore<'_>, to: &Path) -> Result<TransferHeader, String> {
    let failed = |error: io::Error| format!("{}: cannot be written: {error}", to.display());
    let create =
        |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed);
    drop(create(to)?);
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    drop(std::fs::remove_file(&unfinished));
    let exported = create(&unfinished).and_then(|mut file| {
        let header = export_to(from, &mut file)?;
        file.sync_all().and_then(|()| std::fs::rename(&unfinished, to)).map_err(failed)?;
        Ok(header)
    });
    if exported.is_err() {
        drop((std::fs::remove_file(&unfinished), std::fs::remove_file(to)));
    }
    exported
}

/// Imports a file, or standard input, into the configured store.
pub(super) fn import(settings: &Settings, from: &Path) -> Result<StateDone, String> {
    let to = match &settings.state.store {
        StoreSettings::Memory => return Err(MEMORY.to_owned()),
        StoreSettings::Embedded(path) => {
            let issuers = settings.issuers.iter().map(|issuer| &*issuer.rules.issuer).collect();
            ImportingStore::Embedded(path, issuers)
        }
        StoreSettings::Redis(redis) => ImportingStore::Redis(redis, settings.terms()),
    };
    let mut text = String::new();
    let read = match is_stream(from) {
        true => io::stdin().lock().read_to_string(&mut text),
        false => File::open(from).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| format!("{}: cannot be read: {error}", from.display()))?;
    let copy = StateCopy::read(&text).map_err(|fault| format!("{}: {fault}", from.display()))?;
    let report = runtime()?.block_on(add(&copy, to)).map_err(|error| error.to_string())?;
    let refused = match report.not_before {
        Timestamp::EPOCH => "tokens are accepted whenever they were issued".to_owned(),
        since => format!("tokens issued before {since} are refused"),
    };
    let note = if report.keeps_beginning {
        "; a gate used the store during the export, so the file may be incomplete: stop that gate, export and import again"
    } else {
        ""
    };
    let kept = match &*report.kept_directories {
        [] => String::new(),
        names => format!(
            "; not replaced, because they changed here or came from elsewhere: the SCIM directories {}",
            names.join(", ")
        ),
    };
    let (events, known, sessions) = (report.events, report.known, report.sessions);
    Ok(StateDone {
        text: format!(
            "imported {events} events ({known} were known) and {sessions} last uses; {refused}{kept}{note}"
        ),
        document: json!({
            "events": events, "known": known, "sessions": sessions,
            "kept_directories": report.kept_directories, "not_before": report.not_before.to_string(), "complete": !report.keeps_beginning,
        }),
    })
}
