//! A setting that most issuers share, and that some override.

use std::sync::Arc;

use crate::identity::IssuerKey;

/// A value for every issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerIssuer<T> {
    common: T,
    /// Sorted by name. None of them equals the common value, so two instances with the same values are equal.
    own: Vec<OwnValue<T>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnValue<T> {
    issuer: Arc<str>,
    key: IssuerKey,
    value: T,
}

impl<T: PartialEq> PerIssuer<T> {
    /// Creates it from the common value and the values of issuers that override it. If an issuer has
    /// two, the first is used.
    #[must_use]
    pub fn new(common: T, own: impl IntoIterator<Item = (Arc<str>, T)>) -> Self {
        let with_key =
            |(issuer, value): (Arc<str>, T)| OwnValue { key: IssuerKey::new(&issuer), issuer, value };
        let mut own: Vec<OwnValue<T>> = own.into_iter().map(with_key).collect();
        own.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        own.dedup_by(|later, first| later.issuer == first.issuer);
        own.retain(|own| own.value != common);
        Self { common, own }
    }
}

impl<T> PerIssuer<T> {
    /// The value of every issuer without one of its own.
    #[must_use]
    pub fn common(&self) -> &T {
        &self.common
    }

    /// The value of this issuer.
    #[must_use]
    pub fn of(&self, issuer: &str) -> &T {
        self.own.iter().find(|own| *own.issuer == *issuer).map_or(&self.common, |own| &own.value)
    }

    /// The value of the issuer with this key.
    #[must_use]
    pub fn of_key(&self, issuer: IssuerKey) -> &T {
        self.own.iter().find(|own| own.key == issuer).map_or(&self.common, |own| &own.value)
    }

    /// The issuers with a value of their own, sorted by name.
    pub fn own(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        self.own.iter().map(|own| (&own.issuer, &own.value))
    }

    /// All values, the common one first.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.common).chain(self.own.iter().map(|own| &own.value))
    }

    /// Applies `change` to each value.
    #[must_use]
    pub fn map<V: PartialEq>(&self, change: impl Fn(&T) -> V) -> PerIssuer<V> {
        PerIssuer::new(
            change(&self.common),
            self.own().map(|(issuer, value)| (Arc::clone(issuer), change(value))),
        )
    }

    /// Combines the two values of each issuer with `with`.
    #[must_use]
    pub fn zip<U, V: PartialEq>(&self, other: &PerIssuer<U>, with: impl Fn(&T, &U) -> V) -> PerIssuer<V> {
        let names = self.own.iter().map(|own| &own.issuer).chain(other.own.iter().map(|own| &own.issuer));
        let own = names.map(|issuer| (Arc::clone(issuer), with(self.of(issuer), other.of(issuer))));
        PerIssuer::new(with(&self.common, &other.common), own)
    }
}

impl<T> From<T> for PerIssuer<T> {
    /// The same value for all issuers.
    fn from(common: T) -> Self {
        Self { common, own: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "https://a/";
    const B: &str = "https://b/";
    const C: &str = "https://c/";

    fn values(common: i32, own: &[(&str, i32)]) -> PerIssuer<i32> {
        PerIssuer::new(common, own.iter().map(|(issuer, value)| ((*issuer).into(), *value)))
    }

    #[test]
    fn an_issuer_has_its_own_value_or_the_common_one() {
        for (own, expected) in [
            (vec![], [1, 1, 1]),
            (vec![(A, 2)], [2, 1, 1]),
            (vec![(C, 3), (A, 2)], [2, 1, 3]),
            (vec![(A, 1), (B, 1)], [1, 1, 1]),
            (vec![(B, 4), (B, 5)], [1, 4, 1]),
        ] {
            let per = values(1, &own);
            assert_eq!([A, B, C].map(|issuer| *per.of(issuer)), expected, "{own:?}");
            let by_key = [A, B, C].map(|issuer| *per.of_key(IssuerKey::new(issuer)));
            assert_eq!(by_key, expected, "{own:?}");
            assert_eq!(*per.common(), 1);
        }
    }

    #[test]
    fn two_that_say_the_same_are_equal() {
        assert_eq!(values(1, &[(B, 3), (A, 2)]), values(1, &[(A, 2), (B, 3), (C, 1)]));
        assert_eq!(values(1, &[(A, 1)]), PerIssuer::from(1));
        assert_ne!(values(1, &[(A, 2)]), PerIssuer::from(1));
        let own: Vec<_> =
            values(1, &[(C, 3), (A, 2)]).own().map(|(name, value)| (name.to_string(), *value)).collect();
        assert_eq!(own, [(A.to_owned(), 2), (C.to_owned(), 3)]);
        assert_eq!(values(1, &[(C, 3), (A, 2)]).values().copied().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn every_issuer_that_either_names_is_considered() {
        let (one, other) = (values(1, &[(A, 2), (B, 3)]), values(10, &[(B, 30), (C, 40)]));
        let sums = one.zip(&other, |one, other| one + other);
        assert_eq!(sums, values(11, &[(A, 12), (B, 33), (C, 41)]));
        assert_eq!(one.map(|value| value * 2), values(2, &[(A, 4), (B, 6)]));
        let same = one.zip(&other, |_, _| 7);
        assert_eq!((same.own().count(), *same.of(B)), (0, 7));
    }
}
