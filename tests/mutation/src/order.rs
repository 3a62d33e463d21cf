//! Which tests judge a mutant, and in which order.

use std::cmp::Reverse;
use std::time::Duration;

use crate::suite::Test;

/// So much of the tests in one process runs at once, and so much of a suite at most.
const BATCH: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(120);

/// So many tests of processes run at once, and so much of a suite at most, counted one after another.
const PROCESS_BATCH: usize = 4;
const MOST_OF_PROCESSES: Duration = Duration::from_secs(60);

/// The suites whose tests judge, quickest first.
pub(crate) const SUITES: [&str; 5] = ["lib", "rooms", "simulation", "blackbox", "fleet"];

/// What a suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SuiteKind {
    InProcess,
    Processes,
}

impl SuiteKind {
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in one process",
            Self::Processes => "of processes",
        }
    }

    /// The suites of this kind.
    #[must_use]
    pub(crate) fn suites(self) -> &'static [&'static str] {
        match self {
            Self::InProcess => &SUITES[..3],
            Self::Processes => &SUITES[3..],
        }
    }

    /// The tests that reach a mutant of this file, in batches. Those of its room come first, and of them those that reach the
    /// fewest: they were written for it. Of the tests of processes, some take a minute, so what they cost counts as much.
    #[must_use]
    pub(crate) fn order<'t>(self, (mutant, file): (usize, &str), tests: &'t [Test]) -> Vec<Vec<&'t Test>> {
        let mut batches = Vec::new();
        for suite in self.suites() {
            let mut some: Vec<_> =
                tests.iter().filter(|test| test.suite == *suite && test.reached.contains(&mutant)).collect();
            if self == Self::Processes {
                some.sort_by_key(|test| test.took.as_millis() * test.reached.len() as u128);
                let mut all = Duration::ZERO;
                some.retain(|test| {
                    all += test.took;
                    all == test.took || all <= MOST_OF_PROCESSES
                });
                batches.extend(some.chunks(PROCESS_BATCH).map(<[_]>::to_vec));
            } else {
                some.sort_by_key(|test| (Reverse(in_common(file, &test.name)), test.reached.len()));
                batches.extend(in_time(&some));
            }
        }
        batches
    }
}

/// How many modules lie around both a file of the product and a test: unit tests are named by theirs.
fn in_common(file: &str, test: &str) -> usize {
    let modules = file.trim_start_matches("src/").trim_end_matches(".rs").split('/');
    modules.zip(test.split("::")).take_while(|(module, of_test)| module == of_test).count()
}

fn in_time<'a>(tests: &[&'a Test]) -> Vec<Vec<&'a Test>> {
    let mut batches: Vec<Vec<&Test>> = Vec::new();
    let (mut took, mut all) = (BATCH, Duration::ZERO);
    for &test in tests {
        if all + test.took > MOST && !batches.is_empty() {
            continue;
        }
        all += test.took;
        match batches.last_mut() {
            Some(batch) if took + test.took <= BATCH => {
                took += test.took;
                batch.push(test);
            }
            _ => {
                took = test.took;
                batches.push(vec![test]);
            }
        }
    }
    batches
}
