//! The log settings that a reload can change, as one atomic word that every line reads without waiting.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::Level;
use tracing_subscriber::filter::Targets;

use super::access::{Decision, TARGET};
use super::{Format, Settings};

const PRETTY: u8 = 1;
const PATHS: u8 = 1 << 1;
const ALLOWED: u8 = 1 << 2;
const REFUSED: u8 = 1 << 3;
const UNAVAILABLE: u8 = 1 << 4;

/// The settings that affect lines.
#[derive(Debug, Default)]
pub(super) struct Switches(AtomicU8);

/// The settings at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct SwitchPosition(u8);

impl Switches {
    pub(super) fn set(&self, settings: &Settings, filter: &Targets) {
        let Settings { format, level: _, access_log, log_paths } = settings;
        let info = filter.would_enable(TARGET, &Level::INFO);
        let warn = filter.would_enable(TARGET, &Level::WARN);
        let bits = [
            (PRETTY, *format == Format::Pretty),
            (PATHS, *log_paths),
            (ALLOWED, *access_log && info),
            (REFUSED, info),
            (UNAVAILABLE, warn),
        ];
        let position = bits.into_iter().filter(|(_, on)| *on).fold(0, |sum, (bit, _)| sum | bit);
        self.0.store(position, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> SwitchPosition {
        SwitchPosition(self.0.load(Ordering::Relaxed))
    }
}

impl SwitchPosition {
    pub(super) const fn format(self) -> Format {
        if self.0 & PRETTY == 0 { Format::Json } else { Format::Pretty }
    }

    pub(super) const fn paths(self) -> bool {
        self.0 & PATHS != 0
    }

    /// Whether a request with this decision gets a line.
    pub(super) const fn wants(self, decision: Decision) -> bool {
        let bit = match decision {
            Decision::Allow => ALLOWED,
            Decision::Deny | Decision::ShadowDeny => REFUSED,
            Decision::Unavailable => UNAVAILABLE,
        };
        self.0 & bit != 0
    }
}
