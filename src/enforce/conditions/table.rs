//! All conditions of a configuration, so that each token is evaluated against each of them only once.
//!
//! The conditions that a token meets are stored with its proof as a bit set. A route knows the bits it needs,
//! so checking a known token compares two words, whatever the conditions are.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::ClaimCondition;
use crate::enforce::claims::IssuerRules;

/// A condition on a token that does not depend on the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::enforce) enum TokenCondition {
    /// A condition on a claim.
    Claim(ClaimCondition),
    /// Its issuer is one of these.
    Issuer(Vec<Arc<str>>),
    /// It is for one of these audiences, by the claim that its issuer uses for them.
    Audience(Vec<String>),
}

/// The conditions of a configuration, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::enforce) struct ConditionTable(Vec<TokenCondition>);

/// A set of conditions of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConditionSet {
    /// The first 64 of the table: usually all.
    first: u64,
    rest: Box<[u64]>,
}

impl ConditionTable {
    /// Returns the set of these conditions, after adding missing ones to the table.
    pub(in crate::enforce) fn set(
        &mut self,
        conditions: impl IntoIterator<Item = TokenCondition>,
    ) -> ConditionSet {
        let mut places = Vec::new();
        for condition in conditions {
            let known = self.0.iter().position(|known| *known == condition);
            places.push(known.unwrap_or(self.0.len()));
            if known.is_none() {
                self.0.push(condition);
            }
        }
        ConditionSet::of(places)
    }

    /// The set of conditions that a token meets.
    pub(in crate::enforce) fn met_by(
        &self,
        rules: &IssuerRules,
        payload: &Map<String, Value>,
    ) -> ConditionSet {
        let is_met = |condition: &TokenCondition| match condition {
            TokenCondition::Claim(condition) => condition.is_met(payload),
            TokenCondition::Issuer(issuers) => issuers.contains(&rules.issuer),
            TokenCondition::Audience(audiences) => rules.names_audience(payload, audiences),
        };
        let met = self.0.iter().enumerate().filter(|(_, condition)| is_met(condition));
        ConditionSet::of(met.map(|(place, _)| place))
    }
}

impl ConditionSet {
    fn of(places: impl IntoIterator<Item = usize>) -> Self {
        let mut words: Vec<u64> = Vec::new();
        for place in places {
            let (word, bit) = (place / 64, place % 64);
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            if let Some(word) = words.get_mut(word) {
                *word |= 1 << bit;
            }
        }
        let (first, rest) = words.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        Self { first, rest: rest.into() }
    }

    /// Whether all of `needed` are in this set.
    #[must_use]
    pub fn holds(&self, needed: &Self) -> bool {
        let has =
            |(place, needed): (usize, &u64)| needed & !self.rest.get(place).copied().unwrap_or_default() == 0;
        needed.first & !self.first == 0 && needed.rest.iter().enumerate().all(has)
    }

    /// Heap memory that it takes besides its own size.
    pub(in crate::enforce) fn size(&self) -> usize {
        size_of_val(&*self.rest)
    }
}
