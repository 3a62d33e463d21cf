//! A map from evenly spread keys to rules, made for ten million of them: a large frozen base and a small recent layer
//! that overrides it.
//!
//! A change touches the recent layer only. Once a part of that layer has grown, a background thread folds it
//! into the base's part with the same leading bits, while readers and the writer continue with what they
//! have.

use std::collections::HashMap;
use std::sync::Arc;

use super::base::{BaseSegment, CutoffEntry};
use super::recent::{self, PART_BITS, PARTS, Part, Recent};
use super::rules::Rule;
use crate::identity::{AsIs, Key};

/// A persistent map: cloning is cheap, and a clone does not change. An entry with an empty rule overrides the
/// base with nothing.
#[derive(Debug, Clone)]
pub(super) struct CutoffTable<R> {
    base: Arc<[Option<Arc<BaseSegment<R>>>; PARTS]>,
    recent: Recent<R>,
    /// Whether it has been empty since its creation, as most tables are: lookups then end at once.
    untouched: bool,
}

/// A new part of the base, and the recent layer that went into it.
pub(super) struct Folded<R> {
    part: usize,
    segment: Option<Arc<BaseSegment<R>>>,
    taken: Option<Arc<Part<R>>>,
}

/// A part is folded when its recent layer has one entry per this many of the base: often enough to stay
/// small, rarely enough that copying the base costs an event next to nothing.
pub(super) const SHARE: usize = 256;
/// Recent layers up to this size are not worth folding.
const SMALL: usize = 64;

impl<R: Rule> CutoffTable<R> {
    pub(super) fn new() -> Self {
        Self { base: Arc::new([const { None }; PARTS]), recent: Recent::new(), untouched: true }
    }

    pub(super) fn get(&self, key: Key) -> Option<&R> {
        if self.untouched { None } else { self.find(key) }
    }

    fn find(&self, key: Key) -> Option<&R> {
        self.recent.get(key).or_else(|| self.frozen(key)).filter(|rule| !rule.is_empty())
    }

    fn frozen(&self, key: Key) -> Option<&R> {
        self.base[recent::part_of(key)].as_ref()?.get(key, PART_BITS)
    }

    /// Replaces the key's rule with the result of `change`.
    pub(super) fn update(&mut self, key: Key, change: impl FnOnce(R) -> R) {
        let rule = self.get(key).copied().unwrap_or_default();
        self.put(key, change(rule));
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.put(key, R::default());
    }

    fn put(&mut self, key: Key, rule: R) {
        self.untouched = false;
        self.recent.put(key, rule);
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        let frozen: usize = self.base.iter().flatten().map(|segment| segment.len()).sum();
        let recent = || (0..PARTS).filter_map(|part| self.recent.part(part)).flat_map(|part| part.iter());
        let added =
            recent().filter(|entry| !entry.rule.is_empty() && self.frozen(entry.key).is_none()).count();
        let gone = recent().filter(|entry| entry.rule.is_empty() && self.frozen(entry.key).is_some()).count();
        frozen + added - gone
    }

    /// Whether a part's recent layer has one entry for every `share` of the base, or wastes memory: all its
    /// entries are empty, and the base has none.
    pub(super) fn is_due(&self, part: usize, share: usize) -> bool {
        let frozen = self.base[part].as_ref().map_or(0, |segment| segment.len());
        self.recent.part(part).is_some_and(|recent| {
            recent.len() > SMALL.max(frozen / share) || (frozen == 0 && recent.is_all_empty())
        })
    }

    /// Merges both layers of a part.
    pub(super) fn fold(&self, part: usize) -> Folded<R> {
        let taken = self.recent.part(part).cloned();
        let overriding: HashMap<Key, R, AsIs> =
            taken.iter().flat_map(|part| part.iter()).map(|entry| (entry.key, entry.rule)).collect();
        let frozen = self.base[part].iter().flat_map(|segment| segment.iter());
        let kept = frozen.filter(|entry| !overriding.contains_key(&entry.key));
        let newer = overriding.iter().map(|(key, rule)| CutoffEntry { key: *key, rule: *rule });
        let entries: Vec<CutoffEntry<R>> = kept.chain(newer).filter(|entry| !entry.rule.is_empty()).collect();
        let segment = (!entries.is_empty()).then(|| Arc::new(BaseSegment::new(&entries, PART_BITS)));
        Folded { part, segment, taken }
    }

    /// Installs a folded part. Entries that changed since stay in the recent layer, where they override.
    pub(super) fn install(&mut self, folded: Folded<R>) {
        Arc::make_mut(&mut self.base)[folded.part] = folded.segment;
        if let Some(taken) = folded.taken {
            self.recent.release(folded.part, &taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Rule for u32 {
        fn is_empty(&self) -> bool {
            *self == 0
        }
    }

    /// Few different keys, among them the ends of the range and neighbours within one part.
    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            (0_u128..40).prop_map(|low| low),
            (0_u128..40).prop_map(|low| u128::MAX - low),
            (0_u128..40).prop_map(|high| high << 64),
            (0_u128..40).prop_map(|spread| spread.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
        ]
        .prop_map(|bits| Key::from_bytes(bits.to_be_bytes()))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(Key, u32),
        Forget(Key),
        /// Folds one part, or all, while other changes happen.
        Fold(Option<usize>, Vec<(Key, u32)>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let meanwhile = prop::collection::vec((key(), 0_u32..100), 0..4);
        prop_oneof![
            6 => (key(), 1_u32..100).prop_map(|(key, rule)| Step::Set(key, rule)),
            1 => key().prop_map(Step::Forget),
            2 => (prop::option::of(0..PARTS), meanwhile).prop_map(|(part, then)| Step::Fold(part, then)),
        ]
    }

    /// The table, and a model of it.
    #[derive(Clone)]
    struct Pair(CutoffTable<u32>, HashMap<Key, u32>);

    impl Pair {
        fn set(&mut self, key: Key, rule: u32) {
            if rule == 0 {
                self.0.forget(key);
                self.1.remove(&key);
            } else {
                self.0.update(key, |_| rule);
                self.1.insert(key, rule);
            }
        }

        fn fold(&mut self, part: usize, then: &[(Key, u32)]) {
            let folded = self.0.fold(part);
            then.iter().for_each(|(key, rule)| self.set(*key, *rule));
            self.0.install(folded);
            then.iter().for_each(|(key, _)| assert_eq!(self.0.get(*key), self.1.get(key)));
        }

        fn agree(&self, keys: &[Key]) {
            for key in keys {
                assert_eq!(self.0.get(*key), self.1.get(key));
            }
            assert_eq!(self.0.len(), self.1.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn behaves_as_a_hash_map_and_leaves_older_clones_alone(steps in prop::collection::vec(step(), 1..60)) {
            let mut pair = Pair(CutoffTable::new(), HashMap::new());
            let mut kept = Vec::new();
            for step in steps {
                kept.push(pair.clone());
                match step {
                    Step::Set(key, rule) => pair.set(key, rule),
                    Step::Forget(key) => pair.set(key, 0),
                    Step::Fold(Some(part), then) => pair.fold(part, &then),
                    Step::Fold(None, then) => (0..PARTS).for_each(|part| pair.fold(part, &then)),
                }
            }
            kept.push(pair);
            let keys: Vec<Key> = kept.iter().flat_map(|pair| pair.1.keys().copied()).collect();
            kept.iter().for_each(|pair| pair.agree(&keys));
        }
    }

    #[test]
    fn a_part_is_folded_when_it_is_due_and_loses_nothing() {
        let key = |i: u128| {
            Key::from_bytes((i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
        };
        let mut table = CutoffTable::new();
        for i in 0..50_000 {
            table.update(key(i), |old| old + 1_u32);
            let part = recent::part_of(key(i));
            if table.is_due(part, SHARE) {
                let folded = table.fold(part);
                table.install(folded);
            }
        }
        assert_eq!(table.len(), 50_000);
        assert!((0..50_000).all(|i| table.get(key(i)) == Some(&1)));
        assert!((50_000..60_000).all(|i| table.get(key(i)).is_none()));
        let left: usize = (0..PARTS).filter_map(|part| table.recent.part(part)).map(|part| part.len()).sum();
        assert!(left < 16_000, "{left} in the recent layer");
        (0..50_000).for_each(|i| table.forget(key(i)));
        (0..PARTS).for_each(|part| {
            let folded = table.fold(part);
            table.install(folded);
        });
        assert_eq!((table.len(), table.base.iter().flatten().count()), (0, 0), "all forgotten");
    }

    #[test]
    fn a_part_is_due_when_it_has_more_than_its_share_and_is_not_small() {
        // All of these keys lie in the first part.
        let key = |i: u64| Key::from_bytes(u128::from(i).to_be_bytes());
        for (frozen, share, most) in [
            (0, 1, 64),
            (64, 1, 64),
            (65, 1, 65),
            (100, 1, 100),
            (129, 2, 64),
            (130, 2, 65),
            (1_000, SHARE, 64),
        ] {
            let mut table = CutoffTable::new();
            (0..frozen).for_each(|i| table.update(key(i), |_| 1_u32));
            let folded = table.fold(0);
            table.install(folded);
            assert!(!table.is_due(0, share), "nothing changed since");
            for i in 0..most {
                table.update(key(10_000 + i), |_| 1_u32);
            }
            assert!(!table.is_due(0, share), "{most} beside {frozen}, {share}");
            table.update(key(20_000), |_| 1_u32);
            assert!(table.is_due(0, share), "one more than {most} beside {frozen}, {share}");
            assert!(!table.is_due(1, share), "another part");
        }
    }

    #[test]
    fn a_part_of_which_all_was_forgotten_takes_no_memory_once_it_is_folded() {
        let key = |i: u64| Key::from_bytes(u128::from(i).to_be_bytes());
        let mut table = CutoffTable::new();
        table.update(key(1), |_| 1_u32);
        table.update(key(2), |_| 1);
        table.forget(key(1));
        assert!(!table.is_due(0, SHARE), "one is left");
        table.forget(key(2));
        assert!(table.is_due(0, SHARE));
        let folded = table.fold(0);
        table.update(key(3), |_| 1);
        table.install(folded);
        assert!(!table.is_due(0, SHARE), "one came meanwhile");
        assert_eq!((table.get(key(1)), table.get(key(2)), table.get(key(3))), (None, None, Some(&1)));
        table.forget(key(3));
        let folded = table.fold(0);
        table.install(folded);
        assert!(table.recent.part(0).is_none() && table.base[0].is_none());
        assert!(!table.is_due(0, SHARE) && table.len() == 0);

        // An entry in the base is overridden until the base is rebuilt, which costs more.
        table.update(key(1), |_| 1);
        table.update(key(2), |_| 1);
        let folded = table.fold(0);
        table.install(folded);
        table.forget(key(1));
        assert!(!table.is_due(0, SHARE));
        assert_eq!((table.get(key(1)), table.len()), (None, 1));
    }
}
