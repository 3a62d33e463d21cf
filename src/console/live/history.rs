//! Metrics of the last ten minutes: samples in a ring, and the rates and durations computed from them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metrics::Traffic;
use crate::time::Monotonic;

/// How many samples are kept: those of ten minutes.
const KEPT: usize = 300;
/// The time span of one chart point.
pub(super) const SLOT: Duration = Duration::from_secs(10);
/// The number of chart points.
pub(super) const SLOTS: usize = 60;

/// The latest samples, newest last.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

#[derive(Debug)]
struct Sample {
    at: Monotonic,
    traffic: Traffic,
}

/// What was counted during a time span.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CountedTraffic {
    pub(super) took: Duration,
    /// As [`Traffic::answered`].
    pub(super) answered: Vec<u64>,
    /// As [`Traffic::decisions`].
    pub(super) decisions: Vec<(Box<str>, Box<str>, u64)>,
}

impl History {
    /// Adds a sample, replacing the oldest one if necessary.
    pub(super) fn add(&mut self, at: Monotonic, traffic: Traffic) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Sample { at, traffic });
    }

    /// Removes all samples.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What was counted during the last `span`; `None` with fewer than two samples.
    pub(super) fn within(&self, span: Duration) -> Option<CountedTraffic> {
        let newest = self.0.back()?;
        let mut counted = None;
        for (earlier, later) in self.steps() {
            if newest.at.since(earlier.at) <= span {
                counted.get_or_insert_with(CountedTraffic::default).add(earlier, later);
            }
        }
        counted
    }

    /// The points of a chart, newest last; `None` where there are no samples.
    pub(super) fn slots(&self) -> Vec<Option<CountedTraffic>> {
        let mut slots = vec![None; SLOTS];
        let Some(newest) = self.0.back() else { return slots };
        for (earlier, later) in self.steps() {
            let age = newest.at.since(later.at).as_millis() / SLOT.as_millis();
            let place = usize::try_from(age).ok().and_then(|age| (SLOTS - 1).checked_sub(age));
            if let Some(slot) = place.and_then(|place| slots.get_mut(place)) {
                slot.get_or_insert_with(CountedTraffic::default).add(earlier, later);
            }
        }
        slots
    }

    fn steps(&self) -> impl Iterator<Item = (&Sample, &Sample)> {
        self.0.iter().zip(self.0.iter().skip(1))
    }
}

impl CountedTraffic {
    fn add(&mut self, earlier: &Sample, later: &Sample) {
        let (before, now) = (&earlier.traffic, &later.traffic);
        self.took += later.at.since(earlier.at);
        self.answered.resize(now.answered.len(), 0);
        for (place, (sum, count)) in self.answered.iter_mut().zip(&now.answered).enumerate() {
            *sum += increase(before.answered.get(place).copied().unwrap_or_default(), *count);
        }
        for (decision, reason, count) in &now.decisions {
            let same = |known: &&(Box<str>, Box<str>, u64)| known.0 == *decision && known.1 == *reason;
            let grown = increase(before.decisions.iter().find(same).map_or(0, |known| known.2), *count);
            if grown == 0 {
                continue;
            }
            match self.decisions.iter_mut().find(|known| same(&&**known)) {
                Some((_, _, sum)) => *sum += grown,
                None => self.decisions.push((decision.clone(), reason.clone(), grown)),
            }
        }
    }

    /// How many responses were sent.
    pub(super) fn requests(&self) -> u64 {
        self.answered.last().copied().unwrap_or_default()
    }

    /// How many requests were rejected.
    pub(super) fn rejected(&self) -> u64 {
        let is_rejected = |decision: &str| matches!(decision, "deny" | "unavailable");
        self.decisions
            .iter()
            .filter(|(decision, _, _)| is_rejected(decision))
            .map(|(_, _, count)| count)
            .sum()
    }

    /// The rate per second of a count.
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub(super) fn rate(&self, count: u64) -> f64 {
        if self.took.is_zero() { 0.0 } else { count as f64 / self.took.as_secs_f64() }
    }

    /// The duration in seconds that this share of the requests did not exceed.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        quantile(&self.answered, Traffic::bounds(), share)
    }
}

/// The increase of a counter. A counter that is smaller than before was reset.
fn increase(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// The value that this share of the observations does not exceed, assuming that they are evenly distributed
/// within a bucket, as Prometheus does. `counts` are cumulative, and the last one is the total. Values above
/// the highest bound count as that bound.
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn quantile(counts: &[u64], bounds: &[f64], share: f64) -> Option<f64> {
    let all = counts.last().copied().filter(|all| *all > 0)?;
    let rank = share * all as f64;
    let (mut below, mut lower) = (0, 0.0);
    for (count, upper) in counts.iter().zip(bounds) {
        if *count as f64 >= rank && *count > below {
            let within = (rank - below as f64) / (*count - below) as f64;
            return Some(lower + (upper - lower) * within.max(0.0));
        }
        (below, lower) = (*count, *upper);
    }
    bounds.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(requests: u64, expired: u64) -> Traffic {
        let decisions = vec![
            ("allow".into(), "none".into(), requests.saturating_sub(expired)),
            ("deny".into(), "expired".into(), expired),
        ];
        Traffic { answered: vec![requests; Traffic::bounds().len() + 1], decisions }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_millis(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn the_samples_of_ten_minutes_are_kept() {
        let mut history = History::default();
        for number in 0..KEPT as u64 + 10 {
            history.add(at(number * 2), traffic(number, 0));
        }
        assert_eq!(history.0.len(), KEPT);
        assert_eq!(history.0.front().unwrap().at, at(20));
        let all = history.within(Duration::from_secs(600)).unwrap();
        assert_eq!((all.requests(), all.took), (299, Duration::from_secs(598)));
        history.clear();
        assert_eq!(history.within(SLOT), None);
    }

    #[test]
    fn rates_count_from_the_first_sample_and_survive_a_counter_that_begins_anew() {
        let mut history = History::default();
        assert_eq!(history.within(SLOT), None);
        history.add(at(0), traffic(1_000, 10));
        assert_eq!(history.within(SLOT), None, "one sample is no rate");
        history.add(at(2), traffic(1_006, 13));
        history.add(at(4), traffic(4, 1));
        let counted = history.within(SLOT).unwrap();
        assert_eq!((counted.requests(), counted.rejected()), (6 + 4, 3 + 1));
        assert_eq!((counted.rate(counted.requests()), counted.rate(0)), (2.5, 0.0));
        assert_eq!(CountedTraffic::default().rate(3), 0.0);
        assert_eq!(counted.decisions.len(), 2);
    }

    #[test]
    fn observed_requests_count_as_none_that_were_rejected() {
        let decision = |word: &str| (word.into(), "idle".into(), 1);
        let decisions = ["allow", "deny", "unavailable", "shadow_deny"].map(decision).to_vec();
        assert_eq!(CountedTraffic { decisions, ..CountedTraffic::default() }.rejected(), 2);
    }

    #[test]
    fn only_what_is_young_enough_counts() {
        let mut history = History::default();
        for (seconds, requests) in [(0, 0), (50, 100), (60, 101), (62, 104)] {
            history.add(at(seconds), traffic(requests, 0));
        }
        assert_eq!(history.within(Duration::from_secs(12)).unwrap().requests(), 4);
        assert_eq!(history.within(Duration::from_secs(11)).unwrap().requests(), 3);
    }

    #[test]
    fn a_chart_has_a_point_for_every_ten_seconds_with_samples() {
        let mut history = History::default();
        assert_eq!(history.slots(), vec![None; SLOTS]);
        for (seconds, requests) in [(0, 0), (2, 10), (590, 11), (598, 20), (600, 30)] {
            history.add(at(seconds), traffic(requests, 0));
        }
        let slots = history.slots();
        let requests = |place: usize| slots[place].as_ref().map(CountedTraffic::requests);
        assert_eq!((requests(0), requests(1)), (Some(10), None), "598 seconds ago, and 588");
        assert_eq!(
            (requests(SLOTS - 2), requests(SLOTS - 1)),
            (Some(1), Some(19)),
            "10 seconds ago, and since"
        );
        history.add(at(602), traffic(30, 0));
        assert_eq!(history.slots()[0], None, "older than ten minutes");
    }

    #[test]
    fn quantiles_are_read_from_buckets() {
        let bounds = [1.0, 2.0, 4.0];
        for (counts, share, expected) in [
            ([0, 0, 0, 0], 0.5, None),
            ([10, 10, 10, 10], 0.5, Some(0.5)),
            ([10, 10, 10, 10], 1.0, Some(1.0)),
            ([0, 10, 10, 10], 0.5, Some(1.5)),
            ([0, 0, 4, 4], 0.25, Some(2.5)),
            ([1, 2, 3, 4], 0.75, Some(4.0)),
            ([1, 2, 3, 4], 0.99, Some(4.0)),
            ([0, 0, 0, 5], 0.5, Some(4.0)),
            ([0, 5, 5, 5], 0.0, Some(1.0)),
        ] {
            assert_eq!(quantile(&counts, &bounds, share), expected, "{counts:?} {share}");
        }
        assert_eq!(quantile(&[], &[], 0.5), None);
    }
}
