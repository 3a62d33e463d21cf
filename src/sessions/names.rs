//! Interns names that many sessions share, such as those of issuers and clients.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use super::lock;

/// Number of interned names. With more clients, fewer sessions share memory; nothing else changes.
const SLOTS: usize = 1024;
/// Longer names are not interned, so that a hostile token cannot keep them in memory after its session has
/// left.
const LONGEST: usize = 256;

/// The most recently used names, one per slot.
#[derive(Debug)]
pub(super) struct SessionNames(Box<[Mutex<Option<Arc<str>>>]>);

impl SessionNames {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| Mutex::default()).collect())
    }

    /// Returns the interned copy of this name, or interns it.
    pub(super) fn share(&self, name: &Arc<str>) -> Arc<str> {
        if name.len() > LONGEST {
            return Arc::clone(name);
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
        let slot = hasher.finish() as usize % SLOTS;
        let mut held = lock(&self.0[slot]);
        match &*held {
            Some(held) if held == name => Arc::clone(held),
            Some(_) | None => Arc::clone(held.insert(Arc::clone(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_kept_once_and_long_ones_are_not_held() {
        let names = SessionNames::new();
        let twice = |name: &str| {
            let (first, second) = (names.share(&name.into()), names.share(&name.into()));
            assert_eq!((&*first, &*second), (name, name));
            Arc::ptr_eq(&first, &second)
        };
        assert!(twice("client") && twice("https://idp.example.com/") && twice(""));
        assert!(twice(&"x".repeat(LONGEST)));
        assert!(!twice(&"x".repeat(LONGEST + 1)));
        for i in 0..10 * SLOTS {
            let name = i.to_string();
            assert_eq!(*names.share(&name.as_str().into()), *name);
        }
    }
}
