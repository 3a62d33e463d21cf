//! The small, changing part of a table: a persistent tree, so that an event copies a few kilobytes and nothing that readers
//! still use.
//!
//! Three levels of pointers, indexed by the leading bits of the key, end in short lists.

use std::sync::Arc;

use super::base::CutoffEntry;
use super::rules::Rule;
use crate::identity::Key;

/// Number of leading bits that select a part of a table.
pub(super) const PART_BITS: u32 = 7;
/// Number of parts in a table.
pub(super) const PARTS: usize = 1 << PART_BITS;
const BRANCH_BITS: u32 = 7;
const TWIG_BITS: u32 = 4;
const BRANCH: usize = 1 << BRANCH_BITS;
const TWIG: usize = 1 << TWIG_BITS;
/// Words in a part's filter: one bit in fifty is set when a part is folded beside ten million entries.
const FILTER: usize = 256;

/// A persistent map: cloning is cheap, and a clone does not change.
#[derive(Debug, Clone)]
pub(super) struct Recent<R> {
    root: Arc<[Option<Arc<Part<R>>>; PARTS]>,
}

/// The entries whose keys share their leading bits.
#[derive(Debug, Clone)]
pub(super) struct Part<R> {
    /// A Bloom filter with one bit per key, so that most lookups of absent keys cost no more than this.
    filter: [u64; FILTER],
    twigs: [Option<Arc<Twig<R>>>; BRANCH],
    len: usize,
    /// How many of them have empty rules.
    gone: usize,
}

#[derive(Debug, Clone)]
struct Twig<R>([Option<Arc<[CutoffEntry<R>]>>; TWIG]);

impl<R: Rule> Recent<R> {
    pub(super) fn new() -> Self {
        Self { root: Arc::new([const { None }; PARTS]) }
    }

    pub(super) fn get(&self, key: Key) -> Option<&R> {
        let [part, branch, twig] = path(key);
        let part = self.root[part].as_ref()?;
        let (word, bit) = filter(key);
        if part.filter[word] & bit == 0 {
            return None;
        }
        let list = part.twigs[branch].as_ref()?.0[twig].as_ref()?;
        list.iter().find(|entry| entry.key == key).map(|entry| &entry.rule)
    }

    pub(super) fn put(&mut self, key: Key, rule: R) {
        let [part, branch, twig] = path(key);
        let part = Arc::make_mut(&mut self.root)[part].get_or_insert_with(|| Arc::new(Part::new()));
        let part = Arc::make_mut(part);
        let (word, bit) = filter(key);
        part.filter[word] |= bit;
        let twigs = part.twigs[branch].get_or_insert_with(|| Arc::new(Twig([const { None }; TWIG])));
        let list = &mut Arc::make_mut(twigs).0[twig];
        let old = list.as_deref().unwrap_or(&[]);
        let was_gone = old.iter().any(|entry| entry.key == key && entry.rule.is_empty());
        let others = old.iter().filter(|entry| entry.key != key);
        let new: Arc<[CutoffEntry<R>]> = others.chain([&CutoffEntry { key, rule }]).copied().collect();
        part.len += new.len() - old.len();
        part.gone = part.gone + usize::from(rule.is_empty()) - usize::from(was_gone);
        *list = Some(new);
    }

    pub(super) fn part(&self, part: usize) -> Option<&Arc<Part<R>>> {
        self.root[part].as_ref()
    }

    /// Releases a part, unless it changed since `seen`.
    pub(super) fn release(&mut self, part: usize, seen: &Arc<Part<R>>) {
        if self.part(part).is_some_and(|current| Arc::ptr_eq(current, seen)) {
            Arc::make_mut(&mut self.root)[part] = None;
        }
    }
}

impl<R: Rule> Part<R> {
    fn new() -> Self {
        Self { filter: [0; FILTER], twigs: [const { None }; BRANCH], len: 0, gone: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether every entry's rule is empty.
    pub(super) fn is_all_empty(&self) -> bool {
        self.gone == self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &CutoffEntry<R>> {
        self.twigs.iter().flatten().flat_map(|twig| twig.0.iter().flatten()).flat_map(|list| list.iter())
    }
}

/// The part of a table that holds a key.
pub(super) fn part_of(key: Key) -> usize {
    path(key)[0]
}

/// A key's word and bit in its part's filter, independent of its tag in the base.
fn filter(key: Key) -> (usize, u64) {
    ((key.low() >> 6) as usize % FILTER, 1 << (key.low() % 64))
}

/// The indexes on the three levels that a key's leading bits select.
fn path(key: Key) -> [usize; 3] {
    let bits = |skip: u32, take: u32| (key.high() << skip >> (u64::BITS - take)) as usize;
    [bits(0, PART_BITS), bits(PART_BITS, BRANCH_BITS), bits(PART_BITS + BRANCH_BITS, TWIG_BITS)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(high: u64, low: u64) -> Key {
        Key::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    #[test]
    fn the_leading_bits_of_a_key_name_its_place() {
        for (high, expected) in [
            (0, [0, 0, 0]),
            (1 << 57, [1, 0, 0]),
            (1 << 50, [0, 1, 0]),
            (1 << 46, [0, 0, 1]),
            ((1 << 46) - 1, [0, 0, 0]),
            (5 << 57 | 6 << 50 | 7 << 46, [5, 6, 7]),
            (u64::MAX, [127, 127, 15]),
        ] {
            assert_eq!(path(key(high, u64::MAX)), expected, "{high:#x}");
        }
    }

    #[test]
    fn the_trailing_bits_of_a_key_name_its_bit_in_the_filter() {
        for (low, expected) in [
            (0, (0, 1)),
            (1, (0, 2)),
            (63, (0, 1 << 63)),
            (64, (1, 1)),
            (255 << 6 | 3, (255, 8)),
            (256 << 6, (0, 1)),
            (u64::MAX, (255, 1 << 63)),
        ] {
            assert_eq!(filter(key(u64::MAX, low)), expected, "{low:#x}");
        }
    }

    #[test]
    fn a_part_counts_each_key_once() {
        let mut recent = Recent::new();
        // The second part; keys that share a list, and keys that do not.
        let keys = [key(1 << 57, 1), key(1 << 57, 2), key(1 << 57 | 1 << 46, 1), key(1 << 57 | 1 << 50, 1)];
        for round in 0..2 {
            for (count, key) in (1..).zip(keys) {
                recent.put(key, round + 1_u32);
                let expected = if round == 0 { count } else { keys.len() };
                assert_eq!(recent.part(1).map(|part| part.len()), Some(expected));
                assert_eq!(recent.part(1).map(|part| part.iter().count()), Some(expected));
            }
        }
        assert!(recent.part(0).is_none() && recent.part(2).is_none());
    }

    #[test]
    fn a_part_is_gone_when_nothing_is_left_in_it() {
        let mut recent = Recent::new();
        // Two keys in one list, and one in another.
        let [a, b, c] = [key(0, 1), key(0, 2), key(1 << 50, 1)];
        for (key, rule, is_gone) in [
            (a, 0, true),
            (a, 0, true),
            (a, 1, false),
            (a, 2, false),
            (b, 1, false),
            (a, 0, false),
            (b, 0, true),
            (c, 1, false),
            (b, 1, false),
            (c, 0, false),
            (b, 0, true),
        ] {
            recent.put(key, rule);
            assert_eq!(recent.part(0).map(|part| part.is_all_empty()), Some(is_gone), "{key:?} {rule}");
        }
    }
}
