//! Conditions on claims: what an issuer or a route requires of individual claims of a token.
//!
//! A small grammar without regular expressions: matching takes one linear scan, and every pattern is
//! anchored. A condition is evaluated once, when its token is verified; a request only compares a bit mask.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};

use super::policy::ClaimName;

mod glob;
pub(super) mod table;

pub use glob::{Glob, SEGMENT_ENDS};

/// A condition on one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimCondition {
    /// The claim.
    pub claim: ClaimName,
    /// The tests that its value must all pass; for an array, one member must.
    pub tests: Vec<ClaimTest>,
}

/// One test of a claim's value. A value of another type fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimTest {
    /// The value equals this one.
    Equals(ClaimValue),
    /// The value is one of these.
    In(Vec<ClaimValue>),
    /// The value is a string with this prefix.
    Prefix(String),
    /// The value is a string that matches this pattern.
    Glob(Glob),
    /// The claim is present (`true`) or absent.
    Exists(bool),
    /// The value is a number of at least this.
    AtLeast(Number),
    /// The value is a number of at most this.
    AtMost(Number),
}

/// A value to compare claims with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimValue {
    /// A string, compared byte for byte.
    Text(String),
    /// A number, compared by value.
    Number(Number),
    /// `true` or `false`.
    Flag(bool),
}

impl ClaimCondition {
    /// Whether a token with this payload meets the condition. `null` counts as absent.
    #[must_use]
    pub fn is_met(&self, payload: &Map<String, Value>) -> bool {
        match self.claim.find(payload) {
            None => self.tests.iter().all(|test| *test == ClaimTest::Exists(false)),
            Some(Value::Array(members)) if self.looks_at_values() => {
                members.iter().any(|member| self.is_met_by(member))
            }
            Some(value) => self.is_met_by(value),
        }
    }

    fn is_met_by(&self, value: &Value) -> bool {
        self.tests.iter().all(|test| test.is_passed_by(value))
    }

    /// Whether it tests more than presence.
    fn looks_at_values(&self) -> bool {
        self.tests.iter().any(|test| !matches!(test, ClaimTest::Exists(_)))
    }
}

impl ClaimTest {
    /// Whether a present value passes.
    #[must_use]
    pub fn is_passed_by(&self, value: &Value) -> bool {
        match self {
            Self::Equals(wanted) => wanted.equals(value),
            Self::In(wanted) => wanted.iter().any(|one| one.equals(value)),
            Self::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix.as_str())),
            Self::Glob(glob) => value.as_str().is_some_and(|text| glob.matches(text)),
            Self::Exists(exists) => *exists,
            Self::AtLeast(bound) => is_ordered(value, bound, Ordering::is_ge),
            Self::AtMost(bound) => is_ordered(value, bound, Ordering::is_le),
        }
    }
}

impl ClaimValue {
    fn equals(&self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str() == Some(text),
            Self::Number(number) => is_ordered(value, number, Ordering::is_eq),
            Self::Flag(flag) => value.as_bool() == Some(*flag),
        }
    }
}

fn is_ordered(value: &Value, bound: &Number, wanted: fn(Ordering) -> bool) -> bool {
    match value {
        Value::Number(number) => compare(number, bound).is_some_and(wanted),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Compares whole numbers exactly, because an id may exceed the precision of a float; others as floats.
pub(crate) fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

impl fmt::Display for ClaimCondition {
    /// `claim test and test`, as `check` and `explain` show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.claim)?;
        for (index, test) in self.tests.iter().enumerate() {
            let and = if index > 0 { " and " } else { "" };
            write!(f, "{and}{test}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ClaimTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(value) => write!(f, "= {value}"),
            Self::In(values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "in [{}]", values.join(", "))
            }
            Self::Prefix(prefix) => write!(f, "begins with {prefix:?}"),
            Self::Glob(glob) => write!(f, "like {:?}", glob.pattern()),
            Self::Exists(true) => f.write_str("present"),
            Self::Exists(false) => f.write_str("absent"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

impl fmt::Display for ClaimValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

#[cfg(test)]
mod tests;
