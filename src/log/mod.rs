//! The log: the control plane's events and one line per request, through one writer thread that never makes a
//! request wait.
//!
//! Knows lines and where they go; knows nothing of why a request was let through or refused.

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

/// The log, as configured (`[telemetry]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How lines look.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,portcullis::keys=debug`.
    pub level: String,
    /// One line per request that was let through. Refusals do not depend on it.
    pub access_log: bool,
    /// Whether lines carry the request's path (never its query). Off by default, because paths may name people.
    pub log_paths: bool,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Pretty,
}

/// Why the log could not be opened or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogError {
    /// `log_level` cannot be understood.
    Level(LevelError),
    /// Standard output or the writer's thread cannot be had.
    Io(io::Error),
    /// This process has a log already.
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

/// Says whether `level` is a `log_level` that [`init`] will take.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn check_level(level: &str) -> Result<(), LevelError> {
    level::parse(level).map(drop)
}

/// The field `problems` of an event: one text each, in the log a list.
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

/// Prints its text without quotes.
struct Unquoted(String);

impl std::fmt::Debug for Unquoted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Opens the log on standard output and makes it the destination of every `tracing` event of this process.
///
/// Call it once, before other threads start; keep the guard until the last line was written.
///
/// # Errors
/// [`LogError`]; a second call is [`LogError::AlreadyOpen`].
pub fn init(settings: &Settings, metrics: &Metrics) -> Result<(AccessLog, Guard), LogError> {
    // A descriptor of its own: a blocked pipe must hold up the writer's thread only, not everyone who locks stdout.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Io)?);
    let (access, guard, events) = open(settings, metrics, stdout)?;
    tracing::dispatcher::set_global_default(events).map_err(|_taken| LogError::AlreadyOpen)?;
    Ok((access, guard))
}

/// Opens a log on any writer; the events that reach it are those of the threads that use the dispatcher.
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

/// Keeps the log: writes out what is queued when it is dropped, and changes the settings on a reload.
#[must_use = "lines still queued are lost without it"]
pub struct Guard {
    lines: LogQueue,
    switches: Arc<Switches>,
    filter: reload::Handle<Targets, Layered<Events, Registry>>,
}

impl Guard {
    /// Puts other settings in force for the lines that follow.
    pub fn reconfigure(&self, change: Change) {
        let Change { settings, filter } = change;
        self.switches.set(&settings, &filter);
        // An error means that the subscriber is gone, and with it every event that could be filtered.
        drop(self.filter.reload(filter));
    }
}

/// Other settings for an open log, found good.
#[derive(Debug)]
pub struct Change {
    settings: Settings,
    filter: Targets,
}

impl Change {
    /// Looks at other settings without changing anything.
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
