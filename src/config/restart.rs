//! The keys that a reload cannot change: those that keep their value until a restart, and those for which a
//! reload is refused. Both lists are defined only here.
//!
//! Everything in a running gate uses the running values of these keys, even after a reload: a listener that
//! keeps its address until a restart also keeps its TLS.

use serde_json::Value;

use super::{Loaded, Settings};

/// A group of keys that keep their running values together.
struct Fixed {
    /// The name that is reported to the operator.
    name: &'static str,
    /// Where the effective configuration shows them (JSON pointers, RFC 6901).
    shown: &'static [&'static str],
    /// Copies the running values into new settings.
    keep: fn(&mut Settings, &Settings),
}

/// Keys that take effect only after a restart.
const AFTER_RESTART: [Fixed; 13] = [
    Fixed {
        name: "server.listen",
        shown: &["/server/listen"],
        keep: |new, running| new.gate.listen.clone_from(&running.gate.listen),
    },
    Fixed {
        name: "server.workers",
        shown: &["/server/workers"],
        keep: |new, running| new.gate.workers = running.gate.workers,
    },
    Fixed {
        name: "[server.tls] (to add or remove it)",
        shown: &["/server/tls", "/server/allow_plaintext"],
        keep: |new, running| {
            if new.gate.tls.is_some() != running.gate.tls.is_some() {
                new.gate.tls.clone_from(&running.gate.tls);
            }
        },
    },
    Fixed {
        name: "telemetry.listen",
        shown: &["/telemetry/listen"],
        keep: |new, running| new.telemetry = running.telemetry,
    },
    Fixed {
        name: "admin.listen",
        shown: &["/admin/listen"],
        keep: |new, running| new.admin.listen = running.admin.listen,
    },
    Fixed {
        name: "[admin.tls] (to add or remove it)",
        shown: &["/admin/tls"],
        keep: |new, running| {
            if new.admin.tls.is_some() != running.admin.tls.is_some() {
                new.admin.tls.clone_from(&running.admin.tls);
            }
        },
    },
    // Until then, its endpoints must not appear on the public listener.
    Fixed {
        name: "[signals] (to add it with a listener of its own)",
        shown: &["/signals"],
        keep: |new, running| {
            let wants_listener = new.signals.as_ref().is_some_and(|signals| signals.listen.is_some());
            if wants_listener && running.signals.is_none() {
                new.signals = None;
            }
        },
    },
    Fixed {
        name: "signals.listen",
        shown: &["/signals/listen"],
        keep: |new, running| {
            if let (Some(new), Some(running)) = (&mut new.signals, &running.signals) {
                new.listen = running.listen;
            }
        },
    },
    Fixed {
        name: "[signals.tls] (to add or remove it)",
        shown: &["/signals/tls"],
        keep: |new, running| {
            if let (Some(new), Some(running)) = (&mut new.signals, &running.signals)
                && new.tls.is_some() != running.tls.is_some()
            {
                new.tls.clone_from(&running.tls);
            }
        },
    },
    Fixed {
        name: "sessions.max_tracked",
        shown: &["/sessions/max_tracked"],
        keep: |new, running| {
            new.sessions.max_tracked = running.sessions.max_tracked;
            new.enforce.proofs = running.enforce.proofs;
        },
    },
    Fixed {
        name: "state.store and the keys that locate it",
        shown: &[
            "/state/store",
            "/state/path",
            "/state/url",
            "/state/events_url",
            "/state/username",
            "/state/password",
            "/state/ca",
            "/state/key_prefix",
        ],
        keep: |new, running| new.state.store.clone_from(&running.state.store),
    },
    Fixed {
        name: "state.on_empty",
        shown: &["/state/on_empty"],
        keep: |new, running| new.state.on_empty = running.state.on_empty,
    },
    Fixed {
        name: "state.flush_interval",
        shown: &["/state/flush_interval"],
        keep: |new, running| new.state.flush_interval = running.state.flush_interval,
    },
];

/// Keys for which a reload is refused: the rest of the new configuration would not fit their running values.
const REFUSED: [Fixed; 1] = [Fixed {
    name: "[authority]: adding or removing it, or changing its issuer or path, requires a restart; nothing was reloaded",
    shown: &[],
    keep: |new, running| match (&mut new.authority, &running.authority) {
        (Some(new), Some(running)) => {
            new.issuer.clone_from(&running.issuer);
            new.path.clone_from(&running.path);
        }
        (new, running) => new.clone_from(running),
    },
}];

impl Fixed {
    /// Copies the running values into `settings`; returns whether that changed anything.
    fn apply(&self, settings: &mut Settings, running: &Settings) -> bool {
        let wanted = settings.clone();
        (self.keep)(settings, running);
        *settings != wanted
    }
}

impl Loaded {
    /// Returns the configuration that takes effect while `running` keeps some of its values until a restart,
    /// and the names of the keys that require one.
    ///
    /// # Errors
    /// The changes that require a restart and refuse the reload, one sentence each.
    pub fn in_force_after(mut self, running: &Self) -> Result<(Self, Vec<&'static str>), Vec<String>> {
        let mut wanted = self.settings.clone();
        let refused = REFUSED.iter().filter(|fixed| fixed.apply(&mut wanted, &running.settings));
        let refused: Vec<String> = refused.map(|fixed| fixed.name.to_owned()).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let mut waiting = Vec::new();
        for fixed in &AFTER_RESTART {
            if fixed.apply(&mut self.settings, &running.settings) {
                waiting.push(fixed.name);
                fixed.shown.iter().for_each(|at| show(at, &mut self.redacted, &running.redacted));
            }
        }
        // Files that only the running values name must still be watched.
        let signals = self.settings.signals.as_ref().and_then(|signals| signals.tls.as_ref());
        let kept = [self.settings.gate.tls.as_ref(), self.settings.admin.tls.as_ref(), signals];
        for tls in kept.into_iter().flatten() {
            tls.files().for_each(|path| self.files.note(path));
        }
        Ok((self, waiting))
    }
}

/// Copies the running value at this place of the effective configuration.
fn show(at: &str, effective: &mut Value, running: &Value) {
    if let (Some(shown), Some(running)) = (effective.pointer_mut(at), running.pointer(at)) {
        shown.clone_from(running);
    }
}
