//! Ids for trace contexts: cheap, unlikely to repeat, not secret.

use std::cell::Cell;

/// One worker's source of trace ids, span ids and random numbers for sampling (SplitMix64, seeded by the system).
#[derive(Debug)]
pub struct TraceIds(Cell<u64>);

impl Default for TraceIds {
    fn default() -> Self {
        let mut seed = [0; 8];
        // Without random bytes, the ids of this worker are only somewhat more likely to repeat.
        let _ = aws_lc_rs::rand::fill(&mut seed);
        Self(Cell::new(u64::from_ne_bytes(seed)))
    }
}

impl TraceIds {
    /// Generates a trace id.
    pub(crate) fn trace(&self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }

    /// Generates a number that is never zero, because zero is not a valid id.
    pub(crate) fn number(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    }
}
