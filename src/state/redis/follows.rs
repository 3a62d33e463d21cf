//! Decides whether an entry of the log follows another, and what it means if it does not.
//!
//! Each entry names the one before it. Entries that are missing in between were trimmed because they are too
//! old to matter, form a gap that was filled by republishing, or are lost. Pure: the ledger says what is
//! known of missing entries.

use std::fmt;

/// A gap: the missing entries after one place, up to and including another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Gap {
    /// The last entry before the gap; 0 at the start of the log.
    pub(super) after: u64,
    /// The last entry in the gap.
    pub(super) upto: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.after, self.upto)
    }
}

impl Gap {
    /// Parses what [`fmt::Display`] writes.
    fn parse(text: &str) -> Option<Self> {
        let (after, upto) = text.split_once('-')?;
        Some(Self { after: after.parse().ok()?, upto: upto.parse().ok()? })
    }
}

/// What the log's origin says about entries that are no longer in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LogOrigin {
    /// Entries up to this place may have been trimmed.
    pub(super) trimmed: u64,
    /// Gaps whose entries were published again.
    pub(super) filled: Vec<Gap>,
}

/// The most gaps that are listed individually; beyond that they are merged.
pub(super) const GAPS: usize = 64;

impl LogOrigin {
    /// Parses the fields of the origin.
    pub(super) fn parse(trimmed: &str, filled: &str) -> Self {
        Self {
            trimmed: trimmed.parse().unwrap_or(0),
            filled: filled.split(',').filter_map(Gap::parse).collect(),
        }
    }

    /// Whether nothing that matters is missing in this gap.
    pub(super) fn explains(&self, gap: Gap) -> bool {
        let after = gap.after.max(self.trimmed);
        gap.upto <= after || self.filled.iter().any(|filled| filled.after <= after && gap.upto <= filled.upto)
    }
}

/// The relation of an entry to the one that was read before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// It is the next one.
    Next,
    /// The entries in between were trimmed, or were published again.
    Explained,
    /// The entries in between are missing and may matter.
    Missing(Gap),
    /// It does not belong to this log, or not at this place.
    Foreign,
}

/// Compares an entry at the place `sequence`, whose predecessor is `previous`, with the entry `last`
/// that was read before it.
pub(super) fn follows(last: u64, sequence: u64, previous: u64, ledger: &LogOrigin) -> Follows {
    if sequence <= last || previous >= sequence || previous < last {
        return Follows::Foreign;
    }
    let gap = Gap { after: last, upto: previous };
    match previous == last {
        true => Follows::Next,
        false if ledger.explains(gap) => Follows::Explained,
        false => Follows::Missing(gap),
    }
}

/// Merges gaps until at most [`GAPS`] cover all of these.
pub(super) fn compact(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_unstable();
    gaps.dedup();
    if gaps.len() > GAPS
        && let (Some(first), Some(upto)) = (gaps.first().copied(), gaps.iter().map(|gap| gap.upto).max())
    {
        return vec![Gap { after: first.after, upto }];
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn gap(after: u64, upto: u64) -> Gap {
        Gap { after, upto }
    }

    #[test]
    fn an_entry_follows_is_explained_or_shows_what_is_missing() {
        let none = LogOrigin::default();
        let trimmed = LogOrigin { trimmed: 20, filled: vec![] };
        let filled = LogOrigin { trimmed: 0, filled: vec![gap(10, 30)] };
        let both = LogOrigin { trimmed: 20, filled: vec![gap(15, 40)] };
        let table = [
            // Columns: the last entry read, the entry, its predecessor, the ledger, the result.
            (0, 10, 0, &none, Follows::Next),
            (10, 20, 10, &none, Follows::Next),
            (10, 30, 20, &none, Follows::Missing(gap(10, 20))),
            (0, 30, 20, &none, Follows::Missing(gap(0, 20))),
            (10, 10, 9, &none, Follows::Foreign),
            (10, 9, 8, &none, Follows::Foreign),
            (10, 20, 5, &none, Follows::Foreign),
            (10, 20, 20, &none, Follows::Foreign),
            (10, 20, 25, &none, Follows::Foreign),
            // Trimmed, at the front and behind a slow reader.
            (0, 30, 20, &trimmed, Follows::Explained),
            (0, 30, 19, &trimmed, Follows::Explained),
            (10, 30, 20, &trimmed, Follows::Explained),
            (0, 30, 21, &trimmed, Follows::Missing(gap(0, 21))),
            (19, 30, 21, &trimmed, Follows::Missing(gap(19, 21))),
            (20, 30, 21, &trimmed, Follows::Missing(gap(20, 21))),
            // A filled gap, and one that has grown at either end since.
            (10, 40, 30, &filled, Follows::Explained),
            (12, 40, 25, &filled, Follows::Explained),
            (9, 40, 30, &filled, Follows::Missing(gap(9, 30))),
            (10, 40, 31, &filled, Follows::Missing(gap(10, 31))),
            (0, 40, 30, &filled, Follows::Missing(gap(0, 30))),
            // The front was trimmed, and a gap right behind it was filled.
            (0, 50, 40, &both, Follows::Explained),
            (0, 50, 41, &both, Follows::Missing(gap(0, 41))),
        ];
        for (last, sequence, previous, ledger, expected) in table {
            let found = follows(last, sequence, previous, ledger);
            assert_eq!(found, expected, "{last} {sequence} {previous} {ledger:?}");
        }
    }

    const PLACES: [u64; 6] = [10, 20, 30, 40, 50, 60];

    /// The gaps that a reader finds in a log of six entries of which only some remain, one bit for each.
    fn missing(kept: u32, ledger: &LogOrigin) -> Vec<Gap> {
        let (mut last, mut missing) = (0, Vec::new());
        for (index, place) in PLACES.into_iter().enumerate().filter(|(index, _)| kept >> index & 1 == 1) {
            let previous = index.checked_sub(1).map_or(0, |before| PLACES[before]);
            let found = follows(last, place, previous, ledger);
            assert_ne!(found, Follows::Foreign, "{kept:b} {place}");
            missing.extend(if let Follows::Missing(gap) = found { Some(gap) } else { None });
            last = place;
        }
        let end = Gap { after: last, upto: 60 };
        missing.extend((!ledger.explains(end)).then_some(end));
        missing
    }

    #[test]
    fn a_reader_notices_each_entry_that_is_missing() {
        for (kept, trimmed) in (0..64).flat_map(|kept| [0, 10, 30, 60].map(|trimmed| (kept, trimmed))) {
            let missing = missing(kept, &LogOrigin { trimmed, filled: vec![] });
            let lost = PLACES.into_iter().enumerate().filter(|(index, _)| kept >> index & 1 == 0);
            let lost: Vec<u64> = lost.map(|(_, place)| place).filter(|place| *place > trimmed).collect();
            let covers = |place: &u64| missing.iter().any(|gap| gap.after < *place && *place <= gap.upto);
            assert!(lost.iter().all(covers), "{kept:b} {trimmed} {missing:?}");
            assert_eq!(missing.is_empty(), lost.is_empty(), "{kept:b} {trimmed} {missing:?}");
        }
    }

    #[test]
    fn gaps_read_as_they_were_written_and_stay_few() {
        let ledger = LogOrigin { trimmed: 7, filled: vec![gap(0, 3), gap(5, 9)] };
        let text: Vec<String> = ledger.filled.iter().map(ToString::to_string).collect();
        assert_eq!(LogOrigin::parse("7", &text.join(",")), ledger);
        assert_eq!(LogOrigin::parse("", ""), LogOrigin::default());
        assert_eq!(LogOrigin::parse("x", "1,a-b,-,2-"), LogOrigin::default());
        let many: Vec<Gap> = (0..100).map(|i| gap(i * 10, i * 10 + 5)).collect();
        assert_eq!(compact(many.clone()), [gap(0, 995)]);
        assert_eq!(compact(many[..65].to_vec()), [gap(0, 645)]);
        assert_eq!(compact(many[..64].to_vec()), many[..64]);
        assert_eq!(compact(vec![gap(5, 9), gap(0, 3), gap(5, 9)]), ledger.filled);
    }
}
