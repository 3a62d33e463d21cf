//! The configuration: turns a TOML file into valid settings, or reports every problem at once.
//!
//! Reads the file once, table by table (`section`, `values`), and creates the settings of each room (`compile`). Knows
//! every room's settings but not their effect.

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

/// A configuration that was read without a problem.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it comes down to.
    pub settings: Settings,
    /// The configuration file and the files it names, as they were just before they were read.
    pub files: WatchedFiles,
    /// Every effective value, defaults included, in the file's own shape; secrets are `"[redacted]"`.
    pub redacted: Value,
}

/// Reads a configuration file and every file it names.
///
/// # Errors
///
/// Everything that is wrong, each with file, line and key. When the file is no TOML, only what is wrong with its form.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    read(path, ReadFor::Everything)
}

/// Reads a configuration file to judge tokens of the issuers or SPIFFE trust domains of these names by it. Of the secrets
/// and files that it names, only theirs are looked at; instead of the others the settings have values that must not be used.
///
/// # Errors
///
/// As [`load`], except for what is wrong with the secrets and files that are not looked at.
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

/// Reads the text of a configuration file at `path`, and every file it names.
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
            // Never the error's own display, which repeats the line: it may hold a secret.
            reading.problem(error.span().map_or(0, |span| span.start), "", error.message());
        }
        return Err(reading.fail());
    }
    let (settings, redacted) = Section::root(&reading, table.get_ref(), compile::settings);
    let files = reading.finish()?;
    Ok(Loaded { settings, files, redacted })
}
