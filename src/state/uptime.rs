//! Running time: how long gates have had a store open, in total.
//!
//! A duration between two moments of running time is never longer than the time that really passed, whatever
//! the wall clock said at either of them. So data that is kept for a duration of running time is never deleted
//! too early; while no gate runs, the time is not counted and the data is kept longer.

use crate::time::Monotonic;

/// The running time of a store, which this process continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uptime {
    /// The running time in milliseconds when this process first read its clock; negative if that was long
    /// before it opened the store.
    base: i64,
}

impl Uptime {
    /// Continues from the stored running time, at the moment when the store is opened.
    pub(super) fn resume(counted: i64, opened: Monotonic) -> Self {
        Self { base: counted.saturating_sub(opened.as_millis()) }
    }

    /// Converts a moment of this process to its stored form: milliseconds of running time.
    pub(crate) fn at(self, moment: Monotonic) -> i64 {
        self.base.saturating_add(moment.as_millis())
    }

    /// Converts a stored moment to the clock of this process; negative if another process stored it.
    pub(crate) fn moment(self, stored: i64) -> Monotonic {
        Monotonic::from_millis(stored.saturating_sub(self.base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_over_a_restart_without_the_time_between() {
        let first = Uptime::resume(0, Monotonic::from_millis(20));
        assert_eq!(first.at(Monotonic::from_millis(1_020)), 1_000);
        let second = Uptime::resume(1_000, Monotonic::from_millis(50));
        assert_eq!(second.at(Monotonic::from_millis(50)), 1_000);
        assert_eq!(second.moment(400), Monotonic::from_millis(-550), "of the first process");
        assert_eq!(second.moment(second.at(Monotonic::from_millis(70))), Monotonic::from_millis(70));
    }
}
