//! The log: one writer thread that never makes a request wait, the control plane's events and the access log.

/// The log, as configured (CONTRACT §2 `[telemetry]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How lines look.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a directive such as `info,portcullis::keys=debug`.
    pub level: String,
    /// One line per request that was let through. Refusals are logged in any case.
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
