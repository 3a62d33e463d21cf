//! The lease of a stream: which of the replicas that share a store maintains it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::{StreamHealth, announce};
use crate::state::Store;
use crate::time::{Monotonic, Now};

/// How long a lease is valid without renewal.
const LEASE: Duration = Duration::from_secs(5);
/// How often the lease is renewed or requested; more often where a heartbeat of another replica must be noticed in time.
pub(super) const TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(100);

/// How often the lease of a stream with this heartbeat is renewed or requested.
pub(super) fn renewal_interval(heartbeat: Option<Duration>) -> Duration {
    heartbeat.map_or(TICK, |heartbeat| (heartbeat / 2).clamp(SHORTEST_TICK, TICK))
}

/// When this replica last asked for the lease and got it.
#[derive(Debug, Default)]
struct HeldSince(Option<Monotonic>);

impl HeldSince {
    /// Returns whether this replica holds the lease, after the store was asked at `asked` and gave this answer;
    /// `None` if it gave none. Until a lease ends, no other replica can have it.
    fn answered(&mut self, asked: Monotonic, answer: Option<bool>) -> bool {
        match answer {
            Some(is_mine) => self.0 = is_mine.then_some(asked),
            None => self.0 = self.0.filter(|at| asked.since(*at) < LEASE),
        }
        self.0.is_some()
    }
}

/// Renews or requests the lease of the stream, and reads what other replicas reported.
pub(super) async fn hold(
    store: &Store,
    (name, holder, tick): (&str, &str, Duration),
    hearing: Option<Arc<StreamHealth>>,
    owner: watch::Sender<bool>,
) {
    let (mut ticks, mut held) = (interval(tick), HeldSince::default());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !store.is_shared() {
            continue;
        }
        let asked = Monotonic::now();
        let lease = store.hold_stream(name, holder, LEASE).await.ok();
        if let (Some(hearing), Some((text, left))) =
            (&hearing, lease.as_ref().and_then(|lease| lease.told.as_ref()))
        {
            hearing.told(text, *left, Now::read());
        }
        announce(&owner, held.answered(asked, lease.map(|lease| lease.is_mine)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: i64) -> Monotonic {
        Monotonic::from_millis(second * 1000)
    }

    #[test]
    fn a_lease_is_renewed_twice_in_a_heartbeat_and_at_least_each_second() {
        for (heartbeat, expected) in
            [(None, 1000), (Some(600_000), 1000), (Some(1000), 500), (Some(300), 150), (Some(50), 100)]
        {
            let interval = renewal_interval(heartbeat.map(Duration::from_millis));
            assert_eq!(interval, Duration::from_millis(expected), "{heartbeat:?}");
        }
    }

    #[test]
    fn a_lease_that_cannot_be_renewed_ends_with_its_time() {
        let mut held = HeldSince::default();
        for (second, answer, is_mine) in [
            (0, None, false),
            (1, Some(true), true),
            (2, None, true),
            (5, None, true),
            (6, None, false),
            (7, Some(true), true),
            (11, Some(true), true),
            (15, None, true),
            (16, None, false),
            (17, Some(true), true),
            (18, Some(false), false),
            (19, None, false),
        ] {
            assert_eq!(held.answered(at(second), answer), is_mine, "{second} {answer:?}");
        }
    }
}
