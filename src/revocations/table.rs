//! A map from evenly spread keys to rules that costs its readers one cold cache line, and its writer a few kilobytes
//! of copying for each change, whatever its size.
//!
//! Three levels of pointers, indexed by the leading bits of the key, end in leaves: arrays sorted by key, in which a
//! key is found by guessing its place from its bits. A change copies the path to one leaf; everything else is shared
//! with the snapshots that readers still hold. Ten million entries are 38 to a leaf.

use std::sync::Arc;

use super::rules::Rule;
use crate::identity::Key;

const ROOT_BITS: u32 = 7;
const BRANCH_BITS: u32 = 7;
const TWIG_BITS: u32 = 4;
const ROOT: usize = 1 << ROOT_BITS;
const BRANCH: usize = 1 << BRANCH_BITS;
const TWIG: usize = 1 << TWIG_BITS;
/// Twigs in a table, each a step of [`Table::sweep`].
pub(super) const TWIGS: usize = ROOT * BRANCH;

/// A persistent map: a clone is cheap and stays as it is.
#[derive(Debug, Clone)]
pub(super) struct Table<R> {
    root: Arc<[Option<Arc<Branch<R>>>; ROOT]>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Branch<R>([Option<Arc<Twig<R>>>; BRANCH]);

#[derive(Debug, Clone)]
struct Twig<R>([Option<Arc<[Entry<R>]>>; TWIG]);

#[derive(Debug, Clone, Copy)]
struct Entry<R> {
    key: Key,
    rule: R,
}

impl<R: Rule> Table<R> {
    pub(super) fn new() -> Self {
        Self { root: Arc::new([const { None }; ROOT]), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: Key) -> Option<&R> {
        let [root, branch, twig] = path(key);
        let leaf = self.root[root].as_ref()?.0[branch].as_ref()?.0[twig].as_ref()?;
        let at = find(leaf, key).ok()?;
        Some(&leaf[at].rule)
    }

    /// Puts what `change` makes of the key's rule in its place; `None` removes it.
    pub(super) fn update(&mut self, key: Key, change: impl FnOnce(Option<R>) -> Option<R>) {
        let [root, branch, twig] = path(key);
        let child = &mut Arc::make_mut(&mut self.root)[root];
        let child =
            &mut Arc::make_mut(child.get_or_insert_with(|| Arc::new(Branch([const { None }; BRANCH])))).0
                [branch];
        let leaf =
            &mut Arc::make_mut(child.get_or_insert_with(|| Arc::new(Twig([const { None }; TWIG])))).0[twig];

        let entries = leaf.as_deref().unwrap_or(&[]);
        let (before, old, after) = match find(entries, key) {
            Ok(at) => (&entries[..at], Some(entries[at].rule), &entries[at + 1..]),
            Err(at) => (&entries[..at], None, &entries[at..]),
        };
        let new = change(old).map(|rule| Entry { key, rule });
        self.len = self.len + usize::from(new.is_some()) - usize::from(old.is_some());
        let entries: Arc<[Entry<R>]> = match new {
            Some(entry) => before.iter().chain([&entry]).chain(after).copied().collect(),
            None => before.iter().chain(after).copied().collect(),
        };
        *leaf = (!entries.is_empty()).then_some(entries);
    }

    /// Drops the entries below the given twigs that expired before `now`; says how many.
    pub(super) fn sweep(&mut self, twigs: std::ops::Range<usize>, now: u32) -> usize {
        let mut dropped = 0;
        for twig in twigs {
            let (root, branch) = (twig / BRANCH, twig % BRANCH);
            let Some(old) = self.root[root].as_ref().and_then(|child| child.0[branch].as_ref()) else {
                continue;
            };
            let Some((new, gone)) = old.without_expired(now) else { continue };
            dropped += gone;
            if let Some(child) = &mut Arc::make_mut(&mut self.root)[root] {
                Arc::make_mut(child).0[branch] = new.map(Arc::new);
            }
        }
        self.len -= dropped;
        dropped
    }
}

impl<R: Rule> Twig<R> {
    /// What is left of it and how many entries are gone; `None` when all stay.
    fn without_expired(&self, now: u32) -> Option<(Option<Self>, usize)> {
        let count = |leaves: &Self| leaves.0.iter().flatten().map(|leaf| leaf.len()).sum::<usize>();
        let alive = |entry: &&Entry<R>| entry.rule.expires() > now;
        if self.0.iter().flatten().all(|leaf| leaf.iter().all(|entry| alive(&entry))) {
            return None;
        }
        let left = Self(self.0.clone().map(|leaf| {
            let left: Arc<[Entry<R>]> = leaf?.iter().filter(alive).copied().collect();
            (!left.is_empty()).then_some(left)
        }));
        let (before, after) = (count(self), count(&left));
        Some(((after > 0).then_some(left), before - after))
    }
}

/// The places on the three levels that a key's leading bits name.
fn path(key: Key) -> [usize; 3] {
    let bits = |skip: u32, take: u32| (key.high() << skip >> (u64::BITS - take)) as usize;
    [bits(0, ROOT_BITS), bits(ROOT_BITS, BRANCH_BITS), bits(ROOT_BITS + BRANCH_BITS, TWIG_BITS)]
}

/// Where a key is in a leaf, or where it belongs.
///
/// The bits after the path say how far into the leaf the key should lie; the walk from there is a few entries long.
fn find<R>(entries: &[Entry<R>], key: Key) -> Result<usize, usize> {
    let fraction = key.high() << (ROOT_BITS + BRANCH_BITS + TWIG_BITS) >> 32;
    let mut at = ((fraction * entries.len() as u64) >> 32) as usize;
    while at > 0 && entries[at - 1].key >= key {
        at -= 1;
    }
    while at < entries.len() && entries[at].key < key {
        at += 1;
    }
    match entries.get(at) {
        Some(entry) if entry.key == key => Ok(at),
        _ => Err(at),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    impl Rule for u32 {
        fn expires(&self) -> u32 {
            *self
        }
    }

    /// Few different keys, among them the ends of the range and neighbours within one leaf.
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
        Remove(Key),
        Sweep(u32),
    }

    proptest! {
        #[test]
        fn behaves_as_a_hash_map_and_leaves_older_clones_alone(steps in prop::collection::vec(prop_oneof![
            4 => (key(), 1_u32..100).prop_map(|(key, rule)| Step::Set(key, rule)),
            1 => key().prop_map(Step::Remove),
            1 => (0_u32..30).prop_map(Step::Sweep),
        ], 1..200)) {
            let (mut table, mut model) = (Table::new(), HashMap::new());
            let mut kept = Vec::new();
            for step in steps {
                kept.push((table.clone(), model.clone()));
                match step {
                    Step::Set(key, rule) => { table.update(key, |_| Some(rule)); model.insert(key, rule); }
                    Step::Remove(key) => { table.update(key, |_| None); model.remove(&key); }
                    Step::Sweep(now) => { table.sweep(0..TWIGS, now); model.retain(|_, rule| *rule > now); }
                }
            }
            kept.push((table, model));
            for (table, model) in kept {
                prop_assert_eq!(table.len(), model.len());
                for (key, rule) in model {
                    prop_assert_eq!(table.get(key), Some(&rule));
                }
            }
        }
    }

    #[test]
    fn a_key_that_was_never_set_is_not_found() {
        let mut table = Table::new();
        for i in 0..2_000_u128 {
            table.update(Key::from_bytes((i * 2).to_be_bytes()), |_| Some(1));
        }
        assert!((0..2_000_u128).all(|i| table.get(Key::from_bytes((i * 2 + 1).to_be_bytes())).is_none()));
        assert_eq!(table.len(), 2_000);
    }
}
