//! The configuration: turns a TOML file into valid settings, or reports every problem at once.
//!
//! Reads the file once, table by table (`section`, `values`), and creates the settings of each room
//! (`compile`). Knows every room's settings but not their effect.

use std::path::Path;

use serde_json::Value;
use toml::de::DeTable;

mod compile;
mod describe;
mod locate;
mod material;
mod named;
mod restart;
mod schema;
mod section;
mod settings;
mod units;
mod url;
mod values;
pub mod watch;

pub use locate::{ConfigProblem, Problems};
pub use schema::schema;
pub use settings::{IssuerSettings, OnEmpty, SessionSettings, Settings, StateSettings, StoreSettings};

use locate::{ReadFor, Reading, unreadable};
use section::Section;
use watch::WatchedFiles;

/// A configuration without problems.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings of every room.
    pub settings: Settings,
    /// The configuration file and the files it names, with their state just before they were read.
    pub files: WatchedFiles,
    /// Every effective value, including defaults, in the structure of the file; secrets are `"[redacted]"`.
    pub redacted: Value,
}

/// Reads a configuration file and every file it names.
///
/// # Errors
///
/// Every problem, each with file, line and key. If the file is not valid TOML, only its syntax errors.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    read(path, ReadFor::Everything)
}

/// Reads a configuration file to judge tokens of these issuers or SPIFFE trust domains by it. Reads only the
/// secrets and files that belong to them; the settings contain placeholders for the others, which must not be used.
///
/// # Errors
///
/// As [`load`], except for problems with secrets and files that are not read.
pub fn load_to_judge(path: &Path, names: &[&str]) -> Result<Settings, Problems> {
    read(path, ReadFor::Judgement { names }).map(|loaded| loaded.settings)
}

fn read(path: &Path, extent: ReadFor<'_>) -> Result<Loaded, Problems> {
    let mut files = WatchedFiles::default();
    files.note(path);
    match std::fs::read_to_string(path) {
        Ok(text) => read_text(path, &text, files, extent),
        Err(error) => Err(unreadable(path, files, format!("cannot be read: {error}"))),
    }
}

/// Reads a configuration from its text, and every file it names; `path` is the path of the configuration file.
///
/// # Errors
///
/// As [`load`].
pub fn parse(path: &Path, text: &str) -> Result<Loaded, Problems> {
    read_text(path, text, WatchedFiles::default(), ReadFor::Everything)
}

fn read_text(path: &Path, text: &str, files: WatchedFiles, extent: ReadFor<'_>) -> Result<Loaded, Problems> {
    let reading = Reading::new(path, text, files, extent);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            // Not the error's own display, which repeats the line: it may contain a secret.
            reading.problem(error.span().map_or(0, |span| span.start), "", error.message());
        }
        return Err(reading.fail());
    }
    let (settings, redacted) = Section::root(&reading, table.get_ref(), compile::settings);
    let files = reading.finish()?;
    Ok(Loaded { settings, files, redacted })
}
