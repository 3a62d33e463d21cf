//! Caches permanent faults of rejected tokens, so that a client that repeats a bad token does not cause a
//! signature verification each time.
//!
//! An entry is never a verdict: it is the check that one string fails under one key set and configuration.
//! This module knows neither keys nor time; both are checked before a fault is returned.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::decide::Claimed;
use super::denial::Reason;
use super::proofs::ProofKey;
use super::token::Validity;
use crate::time::Monotonic;

/// A fault of a token that does not depend on the time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LastingFault {
    /// The name of the check that it fails.
    pub(super) check: &'static str,
    /// Why that check rejects it.
    pub(super) reason: Reason,
    /// What the token claims, once its issuer is known.
    pub(super) claimed: Option<Claimed>,
    /// Its dates, once they are read. They are judged before most other checks.
    pub(super) validity: Option<Validity>,
    /// The key set of its issuer, once one of its keys was found for the token. The fault is void under
    /// another set.
    pub(super) generation: Option<u64>,
}

/// Maximum number of remembered faults. A fault takes at most half a kilobyte, so an attacker can fill two
/// megabytes.
const SLOTS: usize = 4096;

/// How long a fault is used after it was found. Changed keys and settings void it by themselves; this limits
/// what remains in memory after an attack.
const LIFETIME: Duration = Duration::from_secs(60);

/// The faults found by all workers, one slot per value of a key's last bits. A flood of different tokens only
/// replaces faults, each of which costs one more verification; it takes neither memory nor space from the
/// proofs of good tokens.
pub(super) struct Faults(Box<[ArcSwapOption<HeldFault>]>);

struct HeldFault {
    key: ProofKey,
    fault: Arc<LastingFault>,
    found_at: Monotonic,
}

impl HeldFault {
    fn is_current(&self, now: Monotonic) -> bool {
        now.since(self.found_at) < LIFETIME
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| ArcSwapOption::empty()).collect())
    }

    /// The known fault of a token.
    pub(super) fn get(&self, key: ProofKey, now: Monotonic) -> Option<Arc<LastingFault>> {
        let held = self.slot(key)?.load();
        let held = held.as_ref().filter(|held| held.key == key && held.is_current(now))?;
        Some(Arc::clone(&held.fault))
    }

    /// Remembers the fault of a token, replacing what its slot held.
    pub(super) fn put(&self, key: ProofKey, fault: LastingFault, now: Monotonic) {
        if let Some(slot) = self.slot(key) {
            slot.store(Some(Arc::new(HeldFault { key, fault: Arc::new(fault), found_at: now })));
        }
    }

    /// Drops faults that are too old.
    pub(super) fn sweep(&self, now: Monotonic) {
        for slot in &self.0 {
            let held = slot.load();
            if held.as_ref().is_some_and(|held| !held.is_current(now)) {
                // A fault stored in the slot at this very moment stays.
                let _current = slot.compare_and_swap(&held, None);
            }
        }
    }

    /// The number of faults.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().filter(|slot| slot.load().is_some()).count()
    }

    fn slot(&self, key: ProofKey) -> Option<&ArcSwapOption<HeldFault>> {
        self.0.get(key.slot(self.0.len()))
    }
}

#[cfg(test)]
mod tests;
