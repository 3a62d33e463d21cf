//! The frozen part of a table: most entries, written once and found with one memory access.
//!
//! Open addressing in buckets of three. At ten million entries a lookup costs its memory latency: the keys of a bucket are
//! one cache line, which is enough for a key that is absent, and their rules are in the next line.

use super::rules::Rule;
use crate::identity::Key;

/// A key and its rule.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CutoffEntry<R> {
    pub(super) key: Key,
    pub(super) rule: R,
}

/// The entries whose keys share their leading bits.
#[derive(Debug)]
pub(super) struct BaseSegment<R> {
    buckets: Box<[Bucket<R>]>,
    len: usize,
}

/// Three slots for entries. A slot with an empty rule is free; free slots come last.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(128))]
struct Bucket<R> {
    keys: [Key; SLOTS],
    /// One bit per key that found this bucket full and lies in a later one.
    passed: u64,
    rules: [R; SLOTS],
}

const SLOTS: usize = 3;

impl<R: Rule> BaseSegment<R> {
    /// Builds a segment from entries with distinct keys and non-empty rules, whose keys share `shared`
    /// leading bits.
    pub(super) fn new(list: &[CutoffEntry<R>], shared: u32) -> Self {
        // A quarter of the slots stay empty, so that a search seldom goes beyond its first bucket.
        let buckets = (list.len() * 4 / 3).div_ceil(SLOTS).max(1);
        let mut segment = Self { buckets: vec![Bucket::default(); buckets].into(), len: list.len() };
        for entry in list {
            let mut at = segment.home(entry.key, shared);
            let free = loop {
                let bucket = &mut segment.buckets[at];
                if let Some(free) = bucket.rules.iter().position(Rule::is_empty) {
                    break free;
                }
                bucket.passed |= mark(entry.key);
                at = segment.after(at);
            };
            segment.buckets[at].keys[free] = entry.key;
            segment.buckets[at].rules[free] = entry.rule;
        }
        segment
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: Key, shared: u32) -> Option<&R> {
        let mut at = self.home(key, shared);
        loop {
            let bucket = &self.buckets[at];
            // Branches on purpose: when the CPU speculates on a slot, even wrongly, it fetches the rules
            // along with the keys.
            if let Some(slot) = bucket.keys.iter().position(|held| *held == key) {
                // The key may be zero and the slot free.
                return Some(&bucket.rules[slot]).filter(|rule| !rule.is_empty());
            }
            // A bucket with a free slot was never passed, and there is always one.
            if bucket.passed & mark(key) == 0 {
                return None;
            }
            at = self.after(at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = CutoffEntry<R>> {
        let places = self.buckets.iter().flat_map(|bucket| bucket.keys.iter().zip(&bucket.rules));
        places.filter(|(_, rule)| !rule.is_empty()).map(|(key, rule)| CutoffEntry { key: *key, rule: *rule })
    }

    /// The bucket at which a key's search begins: as far into the segment as its bits say.
    fn home(&self, key: Key, shared: u32) -> usize {
        ((u128::from(key.high() << shared) * self.buckets.len() as u128) >> 64) as usize
    }

    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }
}

/// The bit that marks a key in `passed`, independent of where its search begins.
fn mark(key: Key) -> u64 {
    1 << (key.low() >> 58)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_it_holds_and_nothing_else() {
        let key = |i: u128| {
            Key::from_bytes((i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
        };
        for count in [0_u32, 1, 7, 8, 9, 100, 5_000] {
            let list: Vec<_> =
                (0..count).map(|i| CutoffEntry { key: key(u128::from(i) * 2), rule: i + 1 }).collect();
            let segment = BaseSegment::new(&list, 0);
            assert_eq!((segment.len(), segment.iter().count()), (list.len(), list.len()));
            assert!(list.iter().all(|entry| segment.get(entry.key, 0) == Some(&entry.rule)));
            assert!((0..count).all(|i| segment.get(key(u128::from(i) * 2 + 1), 0).is_none()));
        }
    }

    #[test]
    fn keys_that_all_begin_their_search_in_one_place_are_found() {
        // The same leading bits, and tags that are zero or equal.
        let list: Vec<_> = (1..=100_u32)
            .map(|i| CutoffEntry { key: Key::from_bytes(u128::from(i).to_be_bytes()), rule: i })
            .collect();
        let segment = BaseSegment::new(&list, 0);
        assert!(list.iter().all(|entry| segment.get(entry.key, 0) == Some(&entry.rule)));
        assert!(segment.get(Key::from_bytes(101_u128.to_be_bytes()), 0).is_none());
    }

    #[test]
    fn a_search_begins_as_far_into_the_segment_as_the_key_says() {
        let key = |high: u64| Key::from_bytes((u128::from(high) << 64).to_be_bytes());
        // Nine keys take four buckets.
        let list: Vec<_> = (1..=9).map(|i| CutoffEntry { key: key(i), rule: 1_u32 }).collect();
        for (high, shared, place) in [
            (0, 0, 0),
            (u64::MAX >> 2, 0, 0),
            (1 << 62, 0, 1),
            (1 << 63, 0, 2),
            (3 << 62, 0, 3),
            (u64::MAX, 0, 3),
            // Leading bits that all keys share carry no information.
            (1 << 63, 1, 0),
            (1 << 61, 1, 1),
            (1 << 55, 7, 1),
            (u64::MAX, 7, 3),
        ] {
            let segment = BaseSegment::new(&list, shared);
            assert_eq!(segment.buckets.len(), 4);
            assert_eq!(segment.home(key(high), shared), place, "{high:#x} {shared}");
        }
    }

    #[test]
    fn a_bucket_is_marked_with_the_leading_bits_of_the_lower_half() {
        for (low, expected) in [(0, 1), ((1 << 58) - 1, 1), (1 << 58, 2), (5 << 58, 32), (u64::MAX, 1 << 63)]
        {
            assert_eq!(mark(Key::from_bytes(u128::from(low).to_be_bytes())), expected, "{low:#x}");
        }
    }
}
