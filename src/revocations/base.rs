//! The frozen part of a table: most entries, written once and found with one look at their tags and one at the entry.
//!
//! Open addressing in groups of eight slots. A group's tags, one byte of each key, share a word, so that a key that is
//! not there costs one cache line, and one that is there two; no search depends on a guess of the processor.

use super::rules::Rule;
use crate::identity::Key;

/// A key and what is known of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry<R> {
    pub(super) key: Key,
    pub(super) rule: R,
}

/// The entries whose keys share their leading bits.
#[derive(Debug)]
pub(super) struct Segment<R> {
    /// Eight to a word; zero where a slot is empty.
    tags: Box<[u64]>,
    entries: Box<[Entry<R>]>,
    len: usize,
}

const SLOTS: usize = 8;
const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

impl<R: Rule> Segment<R> {
    /// Holds these, of which no two share a key and each expires some time. `shared` leading bits are the same in all of them.
    pub(super) fn new(list: &[Entry<R>], shared: u32) -> Self {
        // A quarter stays empty, so that a search seldom goes beyond its first group.
        let groups = (list.len() * 4 / 3).div_ceil(SLOTS).max(1);
        let mut segment = Self {
            tags: vec![0; groups].into(),
            entries: vec![Entry::default(); groups * SLOTS].into(),
            len: list.len(),
        };
        for entry in list {
            let mut group = segment.home(entry.key, shared);
            while matches(segment.tags[group], 0) == 0 {
                group = segment.after(group);
            }
            let slot = slot(matches(segment.tags[group], 0));
            segment.tags[group] |= u64::from(tag(entry.key)) << (slot * 8);
            segment.entries[group * SLOTS + slot] = *entry;
        }
        segment
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: Key, shared: u32) -> Option<&R> {
        let tag = tag(key);
        let mut group = self.home(key, shared);
        loop {
            let tags = self.tags[group];
            let mut found = matches(tags, tag);
            while found != 0 {
                let entry = &self.entries[group * SLOTS + slot(found)];
                // A wrong mark may be on an empty slot, whose key is zero.
                if entry.key == key && entry.rule.expires() != 0 {
                    return Some(&entry.rule);
                }
                found &= found - 1;
            }
            if matches(tags, 0) != 0 {
                return None;
            }
            group = self.after(group);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<R>> {
        let filled = |index: &usize| self.tags[index / SLOTS] >> (index % SLOTS * 8) & 0xff != 0;
        (0..self.entries.len()).filter(filled).map(|index| &self.entries[index])
    }

    /// Where a key's search begins: as far into the segment as its bits say.
    fn home(&self, key: Key, shared: u32) -> usize {
        ((u128::from(key.high() << shared) * self.tags.len() as u128) >> 64) as usize
    }

    fn after(&self, group: usize) -> usize {
        if group + 1 == self.tags.len() { 0 } else { group + 1 }
    }
}

/// One byte of the key that is independent of where its search begins.
fn tag(key: Key) -> u8 {
    ((key.low() >> 56) as u8).max(1)
}

/// Marks the bytes of a word that equal `tag`. Bytes above one that is equal may be marked wrongly; the lowest mark is
/// always right, and so is none.
fn matches(tags: u64, tag: u8) -> u64 {
    let differing = tags ^ (ONES * u64::from(tag));
    differing.wrapping_sub(ONES) & !differing & TOPS
}

/// The slot of the lowest mark.
fn slot(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
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
                (0..count).map(|i| Entry { key: key(u128::from(i) * 2), rule: i + 1 }).collect();
            let segment = Segment::new(&list, 0);
            assert_eq!((segment.len(), segment.iter().count()), (list.len(), list.len()));
            assert!(list.iter().all(|entry| segment.get(entry.key, 0) == Some(&entry.rule)));
            assert!((0..count).all(|i| segment.get(key(u128::from(i) * 2 + 1), 0).is_none()));
        }
    }

    #[test]
    fn keys_that_all_begin_their_search_in_one_place_are_found() {
        // The same leading bits, and tags that are zero or equal.
        let list: Vec<_> = (1..=100_u32)
            .map(|i| Entry { key: Key::from_bytes(u128::from(i).to_be_bytes()), rule: i })
            .collect();
        let segment = Segment::new(&list, 0);
        assert!(list.iter().all(|entry| segment.get(entry.key, 0) == Some(&entry.rule)));
        assert!(segment.get(Key::from_bytes(101_u128.to_be_bytes()), 0).is_none());
    }
}
