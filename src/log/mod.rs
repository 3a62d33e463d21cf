//! The log: the control plane's events and one line per request, written by one thread that never makes a
//! request wait.
//!
//! This room knows lines and where they go, but not why a request was let through or denied.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use tracing::Dispatch;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::metrics::Metrics;

mod access;
mod events;
mod level;
mod line;
mod refusals;
mod switches;
mod writer;

pub use access::{AccessLog, AccessRecord, Decision};
pub use level::LevelError;
pub use refusals::{Refusal, Refusals};

use events::Events;
use switches::Switches;
use writer::LogQueue;

/// Settings of the log (`[telemetry]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The format of lines.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,portcullis::keys=debug`.
    pub level: String,
    /// Whether requests that were let through get a line. Denials always do.
    pub access_log: bool,
    /// Whether lines contain the request's path (never its query). Off by default, because paths may identify
    /// people.
    pub log_paths: bool,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// For a person at a terminal.
    Pretty,
}

/// Why the log could not be opened or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogError {
    /// `log_level` is invalid.
    Level(LevelError),
    /// Standard output or the writer's thread is unavailable.
    Io(io::Error),
    /// This process already has a log.
    AlreadyOpen,
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Level(error) => error.fmt(f),
            Self::Io(error) => write!(f, "cannot open the log: {error}"),
            Self::AlreadyOpen => f.write_str("this process already has a log"),
        }
    }
}

impl std::error::Error for LogError {}

/// Checks that `level` is a `log_level` that [`init`] accepts.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn check_level(level: &str) -> Result<(), LevelError> {
    level::parse(level).map(drop)
}

/// Formats the field `problems` of an event, which the log shows as a list of texts.
pub fn list(problems: &[String]) -> tracing::field::DebugValue<impl std::fmt::Debug> {
    let mut json = Vec::new();
    for problem in problems {
        json.extend_from_slice(if json.is_empty() { b"[\"" } else { b"\",\"" });
        line::escape(&mut json, problem);
    }
    json.extend_from_slice(if json.is_empty() { b"[]" } else { b"\"]" });
    let json = String::from_utf8(json).unwrap_or_default();
    tracing::field::debug(Unquoted(json))
}

/// A text that prints without quotes.
struct Unquoted(String);

impl std::fmt::Debug for Unquoted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Opens the log on standard output and makes it the destination of every `tracing` event of this process.
///
/// Call it once, before other threads start; keep the guard until the last line is written.
///
/// # Errors
/// [`LogError`]; a second call is [`LogError::AlreadyOpen`].
pub fn init(settings: &Settings, metrics: &Metrics) -> Result<(AccessLog, Guard), LogError> {
    // A descriptor of its own: a blocked pipe must block only the writer's thread, not everyone who locks
    // stdout.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Io)?);
    let (access, guard, events) = open(settings, metrics, stdout)?;
    tracing::dispatcher::set_global_default(events).map_err(|_taken| LogError::AlreadyOpen)?;
    Ok((access, guard))
}

/// Opens a log on any writer; it receives the events of threads that use the dispatcher.
///
/// # Errors
/// [`LogError`].
pub fn open(
    settings: &Settings,
    metrics: &Metrics,
    out: impl Write + Send + 'static,
) -> Result<(AccessLog, Guard, Dispatch), LogError> {
    let filter = level::parse(&settings.level).map_err(LogError::Level)?;
    let switches = Arc::new(Switches::default());
    switches.set(settings, &filter);
    let lines = writer::start(out, metrics.log_lines_dropped.clone()).map_err(LogError::Io)?;
    let (filter, handle) = reload::Layer::new(filter);
    let events = Events::new(lines.clone(), Arc::clone(&switches));
    let subscriber = tracing_subscriber::registry().with(events).with(filter);
    let access = AccessLog::new(lines.clone(), Arc::clone(&switches));
    Ok((access, Guard { lines, switches, filter: handle }, Dispatch::new(subscriber)))
}

/// Keeps the log open: writes queued lines on drop, and changes settings on a reload.
#[must_use = "lines still queued are lost without it"]
pub struct Guard {
    lines: LogQueue,
    switches: Arc<Switches>,
    filter: reload::Handle<Targets, Layered<Events, Registry>>,
}

impl Guard {
    /// Applies other settings to the lines that follow.
    pub fn reconfigure(&self, change: Change) {
        let Change { settings, filter } = change;
        self.switches.set(&settings, &filter);
        // An error means that the subscriber no longer exists, and with it no event to filter.
        drop(self.filter.reload(filter));
    }
}

/// Validated new settings for an open log.
#[derive(Debug)]
pub struct Change {
    settings: Settings,
    filter: Targets,
}

impl Change {
    /// Validates other settings without changing anything.
    ///
    /// # Errors
    /// [`LogError::Level`].
    pub fn new(settings: &Settings) -> Result<Self, LogError> {
        let filter = level::parse(&settings.level).map_err(LogError::Level)?;
        Ok(Self { settings: settings.clone(), filter })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.lines.flush();
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
